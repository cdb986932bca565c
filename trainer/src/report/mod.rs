//! What a run looked like: a self-contained HTML page, TensorBoard events, a curve in the terminal.
