//! Long answers on standard output, where whoever reads may stop early.

use std::io::{self, ErrorKind, Write};

/// Writes all of it, unless the reader (`head`, a pager) has gone: then it has seen enough.
pub fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(gone) if gone.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
