//! What the xDS port answers with: a stream of frames, or any other response.

use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::Response;
use http_body::{Body, Frame};

use super::frame::Rope;
use super::stream::Responses;

/// A body of either kind.
#[derive(Debug)]
pub enum Outgoing {
    Stream(Responses),
    Other(axum::body::Body),
}

#[derive(Debug)]
pub enum Data {
    Rope(Rope),
    Bytes(Bytes),
}

impl Outgoing {
    pub fn response(response: Response<axum::body::Body>) -> Response<Self> {
        response.map(Self::Other)
    }
}

impl Body for Outgoing {
    type Data = Data;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Data>, axum::Error>>> {
        match self.get_mut() {
            Self::Stream(responses) => {
                let frame = std::task::ready!(Pin::new(responses).poll_frame(cx));
                Poll::Ready(frame.map(|f| match f {
                    Ok(frame) => Ok(frame.map_data(Data::Rope)),
                    Err(never) => match never {},
                }))
            }
            Self::Other(body) => {
                let frame = std::task::ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|f| f.map(|frame| frame.map_data(Data::Bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Stream(responses) => responses.is_end_stream(),
            Self::Other(body) => body.is_end_stream(),
        }
    }
}

impl Buf for Data {
    fn remaining(&self) -> usize {
        match self {
            Self::Rope(rope) => rope.remaining(),
            Self::Bytes(bytes) => bytes.remaining(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Rope(rope) => rope.chunk(),
            Self::Bytes(bytes) => bytes.chunk(),
        }
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        match self {
            Self::Rope(rope) => rope.chunks_vectored(dst),
            Self::Bytes(bytes) => bytes.chunks_vectored(dst),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Rope(rope) => rope.advance(count),
            Self::Bytes(bytes) => bytes.advance(count),
        }
    }
}
