//! Model files: sound ones of the ecosystem's own writers, and every kind of broken one.

mod corpus_adapter;
mod corpus_adapter_peft;
mod corpus_folder;
mod corpus_gguf;
mod corpus_gguf_model;
mod corpus_quantised;
mod corpus_safetensors;
mod fixtures;
mod mutation;
mod other_writers;
mod sources;
mod split;

use lichen_tests::heap::CountingAllocator;

#[global_allocator]
static HEAP: CountingAllocator = CountingAllocator;
