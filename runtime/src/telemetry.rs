//! What a board says of itself: temperatures, power, memory. Reads sysfs below a root folder, so tests can build one.
