//! The tokenizer from outside: against independent vectors, under hostile text and hostile files.

mod files;
mod hostile_files;
mod hostile_text;
mod vectors;
