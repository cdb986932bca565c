//! Contiguous, row-major arrays with the rank in the type: the shape is checked once, where the view is made.

/// Owns memory that lives as long as a session: allocated once, never grown.
#[derive(Clone, Debug)]
pub struct Buffer<T> {
    data: Vec<T>,
}

impl<T: Copy + Default> Buffer<T> {
    /// `len` zeros.
    pub fn new(len: usize) -> Self {
        Buffer { data: vec![T::default(); len] }
    }

    pub fn len(&self) -> usize {
        self.data.len()
    }

    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    pub fn host(&self) -> &[T] {
        &self.data
    }

    pub fn host_mut(&mut self) -> &mut [T] {
        &mut self.data
    }

    /// The first elements, as an array of this shape.
    pub fn view<const R: usize>(&self, shape: [usize; R]) -> View<'_, T, R> {
        View::new(&self.data[..shape.iter().product()], shape)
    }

    /// The first elements, as a mutable array of this shape.
    pub fn view_mut<const R: usize>(&mut self, shape: [usize; R]) -> ViewMut<'_, T, R> {
        ViewMut::new(&mut self.data[..shape.iter().product()], shape)
    }
}

/// A read-only array of rank `R`.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T, const R: usize> {
    data: &'a [T],
    shape: [usize; R],
}

impl<'a, T, const R: usize> View<'a, T, R> {
    /// Panics when the shape does not hold exactly the data.
    pub fn new(data: &'a [T], shape: [usize; R]) -> Self {
        assert_eq!(data.len(), shape.iter().product::<usize>(), "shape {shape:?}");
        View { data, shape }
    }

    pub fn shape(&self) -> [usize; R] {
        self.shape
    }

    pub fn host(&self) -> &'a [T] {
        self.data
    }
}

/// A mutable array of rank `R`.
#[derive(Debug)]
pub struct ViewMut<'a, T, const R: usize> {
    data: &'a mut [T],
    shape: [usize; R],
}

impl<'a, T, const R: usize> ViewMut<'a, T, R> {
    /// Panics when the shape does not hold exactly the data.
    pub fn new(data: &'a mut [T], shape: [usize; R]) -> Self {
        assert_eq!(data.len(), shape.iter().product::<usize>(), "shape {shape:?}");
        ViewMut { data, shape }
    }

    pub fn shape(&self) -> [usize; R] {
        self.shape
    }

    pub fn host(&self) -> &[T] {
        self.data
    }

    pub fn host_mut(&mut self) -> &mut [T] {
        self.data
    }

    /// The same memory for a shorter time, so that one view can be passed to several calls.
    pub fn reborrow(&mut self) -> ViewMut<'_, T, R> {
        ViewMut { data: self.data, shape: self.shape }
    }
}
