//! Settings of training that its messages name; those that inference has too are the runtime's ([`lichen_runtime::setting`]).

use lichen_runtime::setting::Setting;

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: Setting = Setting::new($text);)*
    };
}

settings! {
    /// Rows to train on.
    DATA = "data";
    /// The folder of a run.
    OUT = "out";
    RANK = "rank";
    ALPHA = "alpha";
    TARGETS = "targets";
    /// An adapter that training goes on with.
    INIT_ADAPTER = "init_adapter";
    LEARNING_RATE = "learning_rate";
    /// Tokens of the longest sample.
    MAX_SEQ = "max_seq";
    BATCH = "batch";
    CHECKPOINT_ACTIVATIONS = "checkpoint_activations";
    EVAL_SPLIT = "eval_split";
    /// Questions that must be answered as before training.
    CANARY = "canary";
    RESTART = "restart";
    ALLOW_CHANGED_DATA = "allow_changed_data";
    STOP_TEMP = "stop_temp";
    POWER_BUDGET = "power_budget";
}
