//! The table of a job's settings, in the order of help.

use std::sync::LazyLock;

use lichen_runtime::engine::DeviceChoice;
use lichen_runtime::limits::THREADS_MAX;
use lichen_runtime::setting::table::Access;
use lichen_runtime::setting::{ALLOW_OTHER_BASE, DEVICE, DEVICE_CONFIG, MEMORY_BUDGET, MODEL, RESUME, SEED, THREADS};
use lichen_runtime::setting_access as access;

use super::super::definition::Method;
use super::super::value::{
    bytes, float_format, loss_on, loss_on_name, number, power, shortest, target_names, targets, truncation,
    truncation_name,
};
use super::JobSetting;
use crate::data::{EVAL_SPLIT_MAX, MAX_SEQ_MAX};
use crate::governor::MAX_BOARD_TEMP_RANGE_C;
use crate::layers::Layers;
use crate::optimizer::OptimizerKind;
use crate::plan::Recompute;
use crate::schedule::ScheduleShape;
use crate::setting::*;

/// The setting of this name, or of this earlier or shorter one.
pub fn setting_of_name(name: &str) -> Option<&'static JobSetting> {
    JOB_SETTINGS.iter().find(|s| s.names().any(|known| known == name))
}

/// Every setting of a job but its method, in the order of help.
pub static JOB_SETTINGS: LazyLock<Vec<JobSetting>> =
    LazyLock::new(|| [&ADAPTER[..], &DATA_AND_SIZE, &STEPS, &RUN].concat());

/// A setting that is on or off.
macro_rules! switch {
    ($setting:expr, $doc:literal, $($field:ident).+) => {
        JobSetting::new($setting, "", $doc, access!(switch $($field).+))
    };
}

/// A setting that is a path.
macro_rules! path {
    ($setting:expr, $value:literal, $doc:literal, $($field:ident).+) => {
        JobSetting::new($setting, $value, $doc, access!(path $($field).+))
    };
}

/// A setting that is several paths.
macro_rules! paths {
    ($setting:expr, $value:literal, $doc:literal, $($field:ident).+) => {
        JobSetting::new($setting, $value, $doc, access!(paths $($field).+))
    };
}

/// A setting that is read by the first expression and written by the second.
macro_rules! value {
    ($setting:expr, $value:literal, $doc:literal, $($field:ident).+, |$text:ident| $read:expr, |$it:ident| $write:expr) => {
        JobSetting::new($setting, $value, $doc, access!(text $($field).+, |$text| $read, |$it| $write))
    };
}

/// A number between two others; the second kind may be left out.
macro_rules! number {
    ($setting:expr, $value:literal, $doc:literal, $($field:ident).+, $min:expr, $max:expr) => {
        JobSetting::new($setting, $value, $doc, access!(number $($field).+, $min, $max))
    };
}

macro_rules! optional_number {
    ($setting:expr, $value:literal, $doc:literal, $($field:ident).+, $min:expr, $max:expr) => {
        JobSetting::new($setting, $value, $doc, access!(optional_number $($field).+, $min, $max))
    };
}

/// Steps that can be counted to.
const STEPS_MAX: u64 = 1 << 40;

const ADAPTER: [JobSetting; 9] = [
    number!(RANK, "R", "Rank of the adapter", memory.rank, 1, 1024).of(Method::Lora).memory().fixed(),
    number!(ALPHA, "X", "The adapter's product is scaled by alpha / rank", alpha, 1e-3, 1e6).of(Method::Lora).fixed(),
    value!(
        TARGETS,
        "LIST",
        "Matrices with an adapter: all, or some of q,k,v,o,gate,up,down",
        memory.targets,
        |text| targets(text),
        |v| Some(target_names(v))
    )
    .of(Method::Lora)
    .memory()
    .fixed(),
    value!(
        LAYERS,
        "RANGES",
        "Layers with an adapter, from 0: all, or such as 18-25 or 18,20-25; those before the first are not walked back",
        memory.layers,
        |text| Layers::parse(text),
        |v| (!v.is_all()).then(|| v.to_string())
    )
    .of(Method::Lora)
    .memory()
    .fixed(),
    number!(DROPOUT, "SHARE", "Share of an adapter's inputs that is dropped in each step", memory.dropout, 0.0, 0.95)
        .of(Method::Lora)
        .memory()
        .fixed(),
    path!(INIT_ADAPTER, "PEFT_DIR", "PEFT folder to start from, of the same rank, alpha and targets", init_adapter)
        .of(Method::Lora)
        .fixed(),
    value!(
        WEIGHTS,
        "FORMAT",
        "Format that the forward pass multiplies: f32 or bf16; the trained weights are f32 either way",
        memory.weights,
        |text| float_format(text),
        |v| Some(v.name().to_lowercase())
    )
    .of(Method::Full)
    .memory()
    .fixed(),
    JobSetting::new(
        LEARNING_RATE,
        "X",
        "Highest learning rate",
        Access::Number(
            |job, text| number(text, 1e-12, 10.0).map(|rate| job.learning_rate = Some(rate)),
            |job| Some(shortest(job.learning_rate())),
        ),
    )
    .fixed(),
    path!(
        MODEL,
        "PATH",
        "GGUF file or Hugging Face folder [default: the small demo model inside this program]",
        memory.model
    )
    .memory(),
];

const DATA_AND_SIZE: [JobSetting; 14] = [
    paths!(
        DATA,
        "FILE",
        "JSON or JSONL: chats (messages, or ShareGPT's conversations), questions and answers (Alpaca's instruction, input, \
         output; prompt and completion; question and answer), text, or input_ids with labels; may be given several times, \
         and be a quoted pattern",
        data
    ),
    paths!(
        EVAL_DATA,
        "FILE",
        "The same for rows that are never trained on and score the result, instead of a part of the data",
        eval_data
    ),
    path!(
        OUT,
        "RUN_DIR",
        "Folder of the run: checkpoints, metrics, and `current`, the link to what was published",
        out
    ),
    number!(MAX_SEQ, "TOKENS", "Longest sample", memory.max_seq, 2, MAX_SEQ_MAX).memory().fixed(),
    value!(
        TRUNCATION,
        "RULE",
        "What happens to longer rows: cut (of a chat the last exchanges are kept, of input_ids the first) or drop; running text \
         is cut into pieces",
        truncation,
        |text| truncation(text),
        |v| Some(truncation_name(*v))
    )
    .was(&["over_long"])
    .fixed(),
    switch!(STRICT, "Refuse the data at its first bad row instead of skipping up to 100", strict),
    JobSetting::new(
        LOSS_ON,
        "WHAT",
        "What of a conversation is learned: answers (with their end markers), or all of it",
        Access::Text(
            |job, text| loss_on(text).map(|what| job.loss_on = what),
            |job| Some(loss_on_name(job.loss_on())),
        ),
    )
    .fixed(),
    switch!(TRAIN_ON_PROMPT, "Earlier name: learn all of a conversation", train_on_prompt),
    switch!(PARSE_SPECIAL, "Read control tokens that are written in rows of text as tokens, not as plain text", parse_special)
        .fixed(),
    switch!(NO_SHUFFLE, "Take the rows in the order of the file", no_shuffle).fixed(),
    number!(
        MICRO_BATCH_SIZE,
        "N",
        "Samples computed together; no padding is computed",
        memory.micro_batch_size,
        1,
        4096
    )
    .short("batch")
    .memory()
    .fixed(),
    number!(
        GRADIENT_ACCUMULATION_STEPS,
        "N",
        "Micro-batches of one optimiser step",
        gradient_accumulation_steps,
        1,
        1 << 16
    )
    .short("accumulate")
    .fixed(),
    number!(EPOCHS, "N", "Passes over the data", epochs, 1, 1 << 20).fixed(),
    optional_number!(MAX_STEPS, "N", "Optimiser steps at most", max_steps, 1, STEPS_MAX).fixed(),
];

const STEPS: [JobSetting; 10] = [
    value!(
        SCHEDULE,
        "SHAPE",
        "How the learning rate goes down: cosine, linear or constant",
        schedule,
        |text| ScheduleShape::parse(text),
        |v| Some(v.name().to_string())
    )
    .fixed(),
    number!(
        WARMUP,
        "STEPS",
        "Steps over which the learning rate rises; below 1 a share of all steps",
        warmup,
        0.0,
        1e9
    )
    .fixed(),
    number!(MIN_LR_RATIO, "SHARE", "Where the schedule ends, as a share of the learning rate", min_lr_ratio, 0.0, 1.0)
        .was(&["final_rate"])
        .fixed(),
    number!(
        WEIGHT_DECAY,
        "X",
        "Share of a weight that an update takes away, times the learning rate",
        weight_decay,
        0.0,
        10.0
    )
    .fixed(),
    number!(MAX_GRAD_NORM, "NORM", "Longest gradient (global norm); 0 takes any", max_grad_norm, 0.0, 1e9)
        .was(&["clip"])
        .fixed(),
    value!(
        OPTIMIZER,
        "NAME",
        "The one optimiser there is: adamw",
        memory.optimizer,
        |text| OptimizerKind::parse(text),
        |v| Some(v.name().to_string())
    )
    .memory()
    .fixed(),
    number!(ADAM_BETA1, "X", "Decay of AdamW's first moments", adam_beta1, 0.0, 0.999_999).fixed(),
    number!(ADAM_BETA2, "X", "Decay of AdamW's second moments", adam_beta2, 0.0, 0.999_999).fixed(),
    number!(ADAM_EPS, "X", "What AdamW adds to the root of the second moments", adam_eps, 1e-30, 1.0).fixed(),
    value!(
        CHECKPOINT_ACTIVATIONS,
        "WHEN",
        "Recompute layers in the backward pass instead of keeping them: auto (those that do not fit), on or off",
        memory.checkpoint_activations,
        |text| Recompute::parse(text),
        |v| Some(v.name().to_string())
    )
    .memory(),
];

const RUN: [JobSetting; 16] = [
    number!(
        EVAL_SPLIT,
        "SHARE",
        "Part of the rows that is never trained on and scores the result; 0 for none",
        eval_split,
        0.0,
        EVAL_SPLIT_MAX
    )
    .fixed(),
    optional_number!(
        EVAL_EVERY,
        "N",
        "Steps between evaluations [default: at the end alone]",
        eval_every,
        1,
        STEPS_MAX
    )
    .fixed(),
    path!(
        REGRESSION_PROMPTS,
        "FILE",
        "JSONL of prompts and what their answers must contain: {\"prompt\": \"..\", \"expect\": \"..\"}",
        regression_prompts
    )
    .was(&["canary"]),
    optional_number!(
        SAVE_EVERY,
        "N",
        "Steps between checkpoints [default: every ten minutes]",
        save_every,
        1,
        STEPS_MAX
    ),
    number!(
        SAVE_TOTAL_LIMIT,
        "N",
        "Checkpoints that are kept, beside the best and the published ones",
        save_total_limit,
        1,
        1000
    )
    .was(&["keep"]),
    switch!(RESUME, "Go on from the last checkpoint of the run, or start when there is none", resume),
    switch!(RESTART, "Remove the checkpoints of the run and begin again", restart),
    switch!(ALLOW_CHANGED_DATA, "Resume although the data has changed", allow_changed_data),
    switch!(
        ALLOW_OTHER_BASE,
        "Go on although the run or the adapter it starts from was made for another model of the same shape",
        allow_other_base
    ),
    number!(SEED, "N", "Of everything random: first values, order, dropout, split", seed, 0, u64::MAX).fixed(),
    value!(
        DEVICE,
        "DEVICE",
        "Where to compute: auto, cpu, cuda or cuda:N",
        memory.device,
        |text| DeviceChoice::parse(text),
        |v| Some(v.to_string())
    )
    .memory(),
    optional_number!(
        THREADS,
        "N",
        "CPU threads [default: all cores this process may use]",
        memory.threads,
        1,
        THREADS_MAX
    )
    .memory(),
    value!(
        MEMORY_BUDGET,
        "SIZE",
        "Refuse to start when the memory plan is larger: bytes, or a number with KiB, MiB, GiB, KB, MB, GB",
        memory.memory_budget,
        |text| bytes(text).map(Some),
        |v| v.map(|bytes| bytes.to_string())
    )
    .memory(),
    path!(
        DEVICE_CONFIG,
        "FILE",
        "A board's defaults for such settings, as in device-configs/jetson-nano-4gb.toml; what is given wins",
        memory.device_config
    )
    .memory(),
    value!(
        POWER_BUDGET,
        "POWER",
        "Rest between steps so that the board draws this on average: 5000mW, 5W",
        power_budget_mw,
        |text| power(text).map(Some),
        |v| v.map(|mw| format!("{mw}mW"))
    ),
    optional_number!(
        MAX_BOARD_TEMP_C,
        "CELSIUS",
        "Save and pause above this temperature, resume 20 degrees below it [default: 95]",
        max_board_temp_c,
        *MAX_BOARD_TEMP_RANGE_C.start(),
        *MAX_BOARD_TEMP_RANGE_C.end()
    )
    .was(&["stop_temp"]),
];
