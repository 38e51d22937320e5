//! The little linear algebra that a closed-form fit needs: symmetric positive definite systems in `f64`.

/// A square matrix, row by row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Square {
    pub n: usize,
    pub at: Vec<f64>,
}

impl Square {
    pub fn zeros(n: usize) -> Self {
        Square { n, at: vec![0.0; n * n] }
    }

    /// Adds `weight · v vᵀ` to the lower triangle.
    pub fn add_outer(&mut self, v: &[f64], weight: f64) {
        for (i, row) in self.at.chunks_exact_mut(self.n).enumerate() {
            let scaled = weight * v[i];
            for (sum, x) in row[..=i].iter_mut().zip(v) {
                *sum += scaled * x;
            }
        }
    }

    /// Cholesky's factor L of this matrix (its lower triangle is read), `None` if it is not positive definite.
    pub fn cholesky(&self) -> Option<Cholesky> {
        let n = self.n;
        let mut l = self.at.clone();
        for j in 0..n {
            for i in j..n {
                let dot: f64 = (0..j).map(|k| l[i * n + k] * l[j * n + k]).sum();
                let rest = l[i * n + j] - dot;
                if i == j {
                    if rest.is_nan() || rest <= 0.0 {
                        return None;
                    }
                    l[j * n + j] = rest.sqrt();
                } else {
                    l[i * n + j] = rest / l[j * n + j];
                }
            }
        }
        Some(Cholesky { n, l })
    }
}

/// The lower triangle L with L Lᵀ = A.
pub(super) struct Cholesky {
    n: usize,
    l: Vec<f64>,
}

impl Cholesky {
    /// Solves A x = b in place.
    pub fn solve(&self, b: &mut [f64]) {
        let (n, l) = (self.n, &self.l);
        for i in 0..n {
            let dot: f64 = (0..i).map(|k| l[i * n + k] * b[k]).sum();
            b[i] = (b[i] - dot) / l[i * n + i];
        }
        for i in (0..n).rev() {
            let dot: f64 = (i + 1..n).map(|k| l[k * n + i] * b[k]).sum();
            b[i] = (b[i] - dot) / l[i * n + i];
        }
    }

    /// A⁻¹.
    pub fn inverse(&self) -> Square {
        let mut inverse = Square::zeros(self.n);
        let mut column = vec![0.0; self.n];
        for j in 0..self.n {
            column.fill(0.0);
            column[j] = 1.0;
            self.solve(&mut column);
            for (row, &x) in inverse.at.chunks_exact_mut(self.n).zip(&column) {
                row[j] = x;
            }
        }
        inverse
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_is_solved_and_its_inverse_undoes_it() {
        let a = Square { n: 3, at: vec![4.0, 0.0, 0.0, 2.0, 5.0, 0.0, 0.5, 1.0, 3.0] };
        let full = [[4.0, 2.0, 0.5], [2.0, 5.0, 1.0], [0.5, 1.0, 3.0]];
        let factor = a.cholesky().unwrap();
        let mut x = [7.0, -1.0, 2.0];
        factor.solve(&mut x);
        let back: Vec<f64> = full.iter().map(|row| row.iter().zip(&x).map(|(a, x)| a * x).sum()).collect();
        assert!(back.iter().zip([7.0, -1.0, 2.0]).all(|(a, b)| (a - b).abs() < 1e-12), "{back:?}");
        let inverse = factor.inverse();
        for (i, row) in full.iter().enumerate() {
            for j in 0..3 {
                let product: f64 = (0..3).map(|k| row[k] * inverse.at[k * 3 + j]).sum();
                assert!((product - f64::from(u8::from(i == j))).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn a_matrix_that_is_not_positive_definite_is_refused() {
        let mut a = Square::zeros(2);
        a.add_outer(&[1.0, 2.0], 1.0);
        assert!(a.cholesky().is_none());
    }
}
