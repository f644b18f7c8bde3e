//! The program `fairlead`; everything it does is in the library.

fn main() {}
