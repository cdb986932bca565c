//! Heat and power: when training must wait.
