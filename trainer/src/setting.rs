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
    /// Rows that score the result, in files of their own.
    EVAL_DATA = "eval_data";
    /// The folder of a run.
    OUT = "out";
    RANK = "rank";
    ALPHA = "alpha";
    TARGETS = "targets";
    /// Layers with an adapter.
    LAYERS = "layers";
    /// An adapter that training goes on with.
    INIT_ADAPTER = "init_adapter";
    DROPOUT = "dropout";
    /// The format that full training multiplies.
    WEIGHTS = "weights";
    LEARNING_RATE = "learning_rate";
    /// Tokens of the longest sample.
    MAX_SEQ = "max_seq";
    TRUNCATION = "truncation";
    STRICT = "strict";
    /// What of a conversation is learned.
    LOSS_ON = "loss_on";
    /// What `LOSS_ON` was before it had values.
    TRAIN_ON_PROMPT = "train_on_prompt";
    /// Whether control tokens that are written in a text are tokens.
    PARSE_SPECIAL = "parse_special";
    NO_SHUFFLE = "no_shuffle";
    MICRO_BATCH_SIZE = "micro_batch_size";
    GRADIENT_ACCUMULATION_STEPS = "gradient_accumulation_steps";
    EPOCHS = "epochs";
    MAX_STEPS = "max_steps";
    SCHEDULE = "schedule";
    WARMUP = "warmup";
    MIN_LR_RATIO = "min_lr_ratio";
    WEIGHT_DECAY = "weight_decay";
    MAX_GRAD_NORM = "max_grad_norm";
    OPTIMIZER = "optimizer";
    ADAM_BETA1 = "adam_beta1";
    ADAM_BETA2 = "adam_beta2";
    ADAM_EPS = "adam_eps";
    CHECKPOINT_ACTIVATIONS = "checkpoint_activations";
    EVAL_SPLIT = "eval_split";
    EVAL_EVERY = "eval_every";
    /// Prompts whose answers must stay right.
    REGRESSION_PROMPTS = "regression_prompts";
    SAVE_EVERY = "save_every";
    SAVE_TOTAL_LIMIT = "save_total_limit";
    RESTART = "restart";
    ALLOW_CHANGED_DATA = "allow_changed_data";
    MAX_BOARD_TEMP_C = "max_board_temp_c";
    POWER_BUDGET = "power_budget";
}
