use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr::NonNull;

use super::geometry::Geometry;
use super::party::slots_path;
use crate::layout::{TensorLayout, row_major_strides, span_bytes};
use crate::os::{Mapping, keep_from_forks};

/// The data of one client of an isolated ring, in a file of its own: a slot for each row that it may have.
#[derive(Debug)]
pub(super) struct Slots {
    mapping: Mapping,
    slots: usize,
}

/// A shape that a tensor of an isolated ring cannot have.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "tensor {name:?} of shape {asked:?} does not fit into {most:?}; each dimension may be smaller, none may be left out"
)]
pub struct ShapeError {
    /// The tensor.
    pub name: String,
    /// The shape asked for.
    pub asked: Vec<usize>,
    /// The largest shape, as the ring says.
    pub most: Vec<usize>,
}

/// Requests of an isolated ring, copied to where they are one batch.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) inputs: Vec<Tensors>,
    pub(crate) outputs: Vec<Tensors>,
}

/// A tensor of several rows, in memory of this process.
#[derive(Debug)]
pub(crate) struct Tensors {
    /// Of one row.
    pub(crate) row: TensorLayout,
    /// As in shared memory, the data begins at a multiple of 64.
    blocks: Vec<Block>,
}

#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Block([u8; 64]);

impl Tensors {
    /// Zeros.
    pub(crate) fn new(row: TensorLayout, rows: usize) -> Self {
        let blocks = vec![Block([0; 64]); (row.len * rows).div_ceil(64)];
        Self { row, blocks }
    }

    pub(crate) fn bytes(&self, rows: Range<usize>) -> &[u8] {
        &bytemuck::cast_slice(&self.blocks)[rows.start * self.row.len..rows.end * self.row.len]
    }

    pub(crate) fn bytes_mut(&mut self, rows: Range<usize>) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.blocks)[rows.start * self.row.len..rows.end * self.row.len]
    }
}

/// A tensor like this one, but of another shape that fits into its room.
pub(crate) fn with_shape(most: &TensorLayout, shape: &[usize]) -> Result<TensorLayout, ShapeError> {
    let error = || ShapeError { name: most.name.clone(), asked: shape.to_vec(), most: most.shape.clone() };
    let fits = shape.len() == most.shape.len() && shape.iter().zip(&most.shape).all(|(size, most)| size <= most);
    let strides = row_major_strides(shape).filter(|_| fits).ok_or_else(error)?;
    let len = span_bytes(most.dtype, shape, &strides).map_err(|_| error())?;
    let whole_bytes = shape.iter().product::<usize>() * most.dtype.element_bits() == len * 8;
    if !whole_bytes || len > most.len {
        return Err(error());
    }
    Ok(TensorLayout { shape: shape.to_vec(), strides, len, ..most.clone() })
}

impl Slots {
    /// In a turn, by the client.
    pub(super) fn create(ring: &Path, client: usize, geometry: &Geometry) -> io::Result<Self> {
        let path = slots_path(ring, client);
        let _ = std::fs::remove_file(&path);
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        file.set_len((geometry.slot().bytes * geometry.credits()) as u64)?;
        crate::os::reserve(&path)?;
        Self::map(&file, geometry)
    }

    /// By a worker.
    pub(super) fn open(ring: &Path, client: usize, geometry: &Geometry) -> io::Result<Self> {
        Self::map(&File::options().read(true).write(true).open(slots_path(ring, client))?, geometry)
    }

    fn map(file: &File, geometry: &Geometry) -> io::Result<Self> {
        let mapping = Mapping::new(file, geometry.slot().bytes * geometry.credits())?;
        keep_from_forks(&mapping)?;
        Ok(Self { mapping, slots: geometry.credits() })
    }

    /// Part of a slot. Who may read and write it is what the word of its row says.
    fn part(&self, geometry: &Geometry, slot: usize, part: Range<usize>) -> NonNull<[u8]> {
        assert!(
            slot < self.slots && part.start <= part.end && part.end <= geometry.slot().bytes,
            "outside of the slots"
        );
        // SAFETY: in the mapping, which has `slots` slots of these bytes, as was just checked for this one and this part.
        let start = unsafe { self.mapping.start().add(slot * geometry.slot().bytes + part.start) };
        NonNull::slice_from_raw_parts(start, part.len())
    }

    /// The room of a tensor.
    pub(super) fn data(&self, geometry: &Geometry, slot: usize, tensor: usize) -> NonNull<[u8]> {
        self.part(geometry, slot, geometry.slot().data(tensor))
    }

    /// Says what shape a tensor has this time. It fits, and so do its dimensions into 32 bits.
    pub(super) fn set_shape(&self, geometry: &Geometry, slot: usize, tensor: usize, shape: &[usize]) {
        let bytes: Vec<u8> = shape.iter().flat_map(|&size| (size as u32).to_le_bytes()).collect();
        let to = self.part(geometry, slot, geometry.slot().shape(tensor));
        assert_eq!(to.len(), bytes.len(), "another rank");
        // SAFETY: in the mapping, of this length; by the row's word nobody else reads or writes it now.
        unsafe { to.cast::<u8>().copy_from_nonoverlapping(NonNull::from(&*bytes).cast(), bytes.len()) };
    }

    /// The shape that a tensor has this time, whatever the other side wrote there: to be checked.
    pub(super) fn shape(&self, geometry: &Geometry, slot: usize, tensor: usize) -> Vec<usize> {
        let from = self.part(geometry, slot, geometry.slot().shape(tensor));
        let mut bytes = vec![0; from.len()];
        // SAFETY: in the mapping, of this length; by the row's word nobody writes it now.
        unsafe { NonNull::from(&mut *bytes).cast::<u8>().copy_from_nonoverlapping(from.cast(), bytes.len()) };
        bytes.chunks_exact(4).map(|size| u32::from_le_bytes([size[0], size[1], size[2], size[3]]) as usize).collect()
    }
}
