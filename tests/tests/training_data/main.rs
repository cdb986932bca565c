//! Training data over the public API: which ids are labelled, broken files and their sentences, order, memory.

mod checks;
mod corpus;
mod files;
mod goldens;
mod long_rows;
mod masks;
mod mutation;
mod order;
mod regression_prompts;
mod several_files;
mod shapes;
mod support;
mod templates;
#[path = "../text_support/mod.rs"]
mod text_support;

use lichen_tests::heap::CountingAllocator;

#[global_allocator]
static HEAP: CountingAllocator = CountingAllocator;
