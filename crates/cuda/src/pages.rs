//! Compressed rows and index rows: they are only ever appended, in pages of 1024 tokens that hold the
//! rows of every layer. A copy of a slot shares all its pages; the last one is copied by whoever goes
//! on writing in it. How many rows are alive is the slot's length to say.

use std::sync::Arc;

use crate::{
    device::{Buffer, Device},
    options::CudaError,
};

/// Tokens of a page; a multiple of every compression ratio. The kernels know it too.
pub const PAGE_TOKENS: usize = 1024;

/// The pages of a slot.
pub struct Pages {
    page_bytes: usize,
    pages: Vec<Arc<Buffer>>,
    /// The addresses of the pages, where kernels look them up.
    table: Buffer,
    /// What the table says. A reservation that failed half way has left it behind the pages.
    listed: Vec<u64>,
}

impl Pages {
    /// None yet.
    pub fn new(device: &Device, page_bytes: usize) -> Result<Pages, CudaError> {
        let table = device.alloc(64 * size_of::<u64>(), "a table of pages")?;
        Ok(Pages { page_bytes, pages: Vec::new(), table, listed: Vec::new() })
    }

    /// Another slot's view of the same pages.
    pub fn share(&self, device: &Device) -> Result<Pages, CudaError> {
        let table = device.duplicate(&self.table, "a table of pages")?;
        let (pages, listed) = (self.pages.clone(), self.listed.clone());
        Ok(Pages { page_bytes: self.page_bytes, pages, table, listed })
    }

    /// Where the table lies.
    pub fn table(&self) -> u64 {
        self.table.address()
    }

    /// Sees to it that tokens `from .. to` can be written: that their pages exist, and are nobody
    /// else's.
    pub fn reserve(&mut self, device: &Device, from: usize, to: usize) -> Result<(), CudaError> {
        if self.page_bytes == 0 || from >= to {
            return Ok(());
        }
        for index in from / PAGE_TOKENS..to.div_ceil(PAGE_TOKENS) {
            match self.pages.get_mut(index) {
                None => {
                    let page = device.alloc(self.page_bytes, "a page of compressed rows")?;
                    self.pages.push(Arc::new(page));
                }
                Some(page) if Arc::strong_count(page) > 1 => {
                    *page = Arc::new(device.duplicate(page, "a page of compressed rows")?);
                }
                Some(_) => {}
            }
        }
        let addresses: Vec<u64> = self.pages.iter().map(|page| page.address()).collect();
        // Pages that are no longer there may stay listed: nothing looks beyond the length.
        if self.listed.starts_with(&addresses) {
            return Ok(());
        }
        if size_of_val(&addresses[..]) > self.table.len() {
            let room = (2 * self.table.len()).max(size_of_val(&addresses[..]));
            self.table = device.alloc(room, "a table of pages")?;
        }
        self.listed.clear();
        device.write(&self.table, 0, &addresses)?;
        self.listed = addresses;
        Ok(())
    }

    /// Frees the pages that lie wholly beyond `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.pages.truncate(len.div_ceil(PAGE_TOKENS));
    }

    /// The pages, in order.
    pub fn pages(&self) -> &[Arc<Buffer>] {
        &self.pages
    }
}
