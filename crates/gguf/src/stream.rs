//! The second half of writing a container: the bytes of its tensors, in the order of its directory.
//!
//! Nothing is held back, so a file may be far larger than memory. The directory is already written
//! by then: the stream's duty is that every tensor gets exactly the bytes that were announced.

use std::{
    io::{self, Write},
    iter::Peekable,
    path::PathBuf,
    vec,
};

use crate::Error;

/// A tensor that the directory announced, with its place in the file.
#[derive(Debug)]
pub(crate) struct Announced {
    pub(crate) name: String,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// Takes the tensors of a container whose directory is written.
#[derive(Debug)]
pub struct TensorStream<W> {
    file: PathBuf,
    sink: W,
    written: u64,
    file_bytes: u64,
    announced: Peekable<vec::IntoIter<Announced>>,
}

impl<W: Write> TensorStream<W> {
    /// Writes the directory and waits for the tensors.
    pub(crate) fn begin(
        file: PathBuf,
        mut sink: W,
        directory: &[u8],
        announced: Vec<Announced>,
        file_bytes: u64,
    ) -> Result<TensorStream<W>, Error> {
        sink.write_all(directory).map_err(|source| Error::write(&file, source))?;
        let announced = announced.into_iter().peekable();
        Ok(TensorStream { file, sink, written: directory.len() as u64, file_bytes, announced })
    }

    /// The size that the whole file will have: what the disk must have room for.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The name of the tensor whose turn it is.
    pub fn next_tensor(&mut self) -> Option<&str> {
        self.announced.peek().map(|next| &*next.name)
    }

    /// Writes the next tensor from pieces that together are as long as it is.
    pub fn write<C: AsRef<[u8]>>(
        &mut self,
        name: &str,
        chunks: impl IntoIterator<Item = C>,
    ) -> Result<(), Error> {
        let Some(tensor) = self.announced.next_if(|next| next.name == name) else {
            let turn = self.next_tensor().map_or("no more".to_owned(), |next| format!("`{next}`"));
            return Err(Error::tensor(&self.file, name, format!("out of turn: {turn} is next")));
        };
        self.pad_to(tensor.offset)?;
        let mut left = tensor.bytes;
        for chunk in chunks {
            let chunk = chunk.as_ref();
            let Some(rest) = left.checked_sub(chunk.len() as u64) else {
                let reason = format!("given more than its {} bytes", tensor.bytes);
                return Err(Error::tensor(&self.file, name, reason));
            };
            left = rest;
            self.sink.write_all(chunk).map_err(|source| Error::write(&self.file, source))?;
        }
        self.written += tensor.bytes;
        if left > 0 {
            let reason = format!("given {left} bytes fewer than its {}", tensor.bytes);
            return Err(Error::tensor(&self.file, name, reason));
        }
        Ok(())
    }

    /// Ends the file, which must have all its tensors by now, and gives the sink back.
    pub fn finish(mut self) -> Result<W, Error> {
        if let Some(missing) = self.announced.peek() {
            return Err(Error::tensor(&self.file, &missing.name, "announced, but never written"));
        }
        self.pad_to(self.file_bytes)?;
        self.sink.flush().map_err(|source| Error::write(&self.file, source))?;
        Ok(self.sink)
    }

    fn pad_to(&mut self, offset: u64) -> Result<(), Error> {
        let gap = offset.saturating_sub(self.written);
        io::copy(&mut io::Read::take(io::repeat(0), gap), &mut self.sink)
            .map_err(|source| Error::write(&self.file, source))?;
        self.written += gap;
        Ok(())
    }
}
