//! Differentiation in f64 by a tape of numbers: each operation notes the slope of its result by each of its operands, and
//! the chain rule is applied to the notes in reverse. It knows sums, products and five functions, no matrix and no layer.

/// A number on a tape.
#[derive(Clone, Copy, Debug)]
pub struct Number(u32);

/// Numbers in the order in which they were computed.
pub struct Tape {
    values: Vec<f64>,
    /// (operand, slope) of all operations, and where those of each number end.
    slopes: Vec<(u32, f64)>,
    ends: Vec<u32>,
    records: bool,
}

impl Tape {
    /// Without `records` values alone are kept, and there are no gradients.
    pub fn new(records: bool) -> Tape {
        Tape { values: Vec::new(), slopes: Vec::new(), ends: Vec::new(), records }
    }

    pub fn value(&self, x: Number) -> f64 {
        self.values[x.0 as usize]
    }

    /// A number that depends on no other.
    pub fn leaf(&mut self, value: f64) -> Number {
        self.push(value, &[])
    }

    fn push(&mut self, value: f64, operands: &[(Number, f64)]) -> Number {
        self.values.push(value);
        if self.records {
            self.slopes.extend(operands.iter().map(|(x, slope)| (x.0, *slope)));
            self.ends.push(u32::try_from(self.slopes.len()).expect("a tape of small models"));
        }
        Number(u32::try_from(self.values.len() - 1).expect("a tape of small models"))
    }

    pub fn add(&mut self, a: Number, b: Number) -> Number {
        self.push(self.value(a) + self.value(b), &[(a, 1.0), (b, 1.0)])
    }

    pub fn mul(&mut self, a: Number, b: Number) -> Number {
        let (x, y) = (self.value(a), self.value(b));
        self.push(x * y, &[(a, y), (b, x)])
    }

    /// `a x + b`.
    pub fn affine(&mut self, x: Number, a: f64, b: f64) -> Number {
        self.push(a * self.value(x) + b, &[(x, a)])
    }

    pub fn exp(&mut self, x: Number) -> Number {
        let y = self.value(x).exp();
        self.push(y, &[(x, y)])
    }

    pub fn ln(&mut self, x: Number) -> Number {
        let v = self.value(x);
        self.push(v.ln(), &[(x, 1.0 / v)])
    }

    pub fn tanh(&mut self, x: Number) -> Number {
        let y = self.value(x).tanh();
        self.push(y, &[(x, 1.0 - y * y)])
    }

    /// `1 / x`.
    pub fn reciprocal(&mut self, x: Number) -> Number {
        let y = 1.0 / self.value(x);
        self.push(y, &[(x, -y * y)])
    }

    /// `1 / sqrt(x)`.
    pub fn reciprocal_root(&mut self, x: Number) -> Number {
        let v = self.value(x);
        let y = 1.0 / v.sqrt();
        self.push(y, &[(x, -0.5 * y / v)])
    }

    pub fn sum(&mut self, x: &[Number]) -> Number {
        let sum = x.iter().map(|x| self.value(*x)).sum();
        let operands: Vec<_> = x.iter().map(|x| (*x, 1.0)).collect();
        self.push(sum, &operands)
    }

    /// The sum of the products of pairs.
    pub fn dot(&mut self, a: &[Number], b: &[Number]) -> Number {
        assert_eq!(a.len(), b.len());
        let mut sum = 0.0;
        for (a, b) in a.iter().zip(b) {
            let (x, y) = (self.values[a.0 as usize], self.values[b.0 as usize]);
            sum += x * y;
            if self.records {
                self.slopes.extend([(a.0, y), (b.0, x)]);
            }
        }
        self.push(sum, &[])
    }

    /// The slope of `y` by the first `n` numbers.
    pub fn gradients(&self, y: Number, n: usize) -> Vec<f64> {
        assert!(self.records);
        let mut d = vec![0.0; self.values.len()];
        d[y.0 as usize] = 1.0;
        for i in (0..d.len()).rev() {
            let start = if i == 0 { 0 } else { self.ends[i - 1] };
            for (operand, slope) in &self.slopes[start as usize..self.ends[i] as usize] {
                d[*operand as usize] += slope * d[i];
            }
        }
        d.truncate(n);
        d
    }
}

/// Each operation by two points beside it, through a sum in which every operand occurs twice.
#[test]
fn slopes_are_those_of_two_points() {
    let compute = |tape: &mut Tape, values: [f64; 3]| {
        let [a, b, c] = values.map(|v| tape.leaf(v));
        let product = tape.mul(a, b);
        let parts = [
            tape.add(a, product),
            tape.affine(b, 3.0, 1.0),
            tape.exp(a),
            tape.ln(c),
            tape.tanh(product),
            tape.reciprocal(c),
            tape.reciprocal_root(c),
            tape.dot(&[a, b, a], &[b, c, a]),
            tape.sum(&[a, c, a]),
        ];
        let weights = [1.0, -2.0, 0.5, 3.0, -0.7, 1.3, 2.2, 0.9, -1.1].map(|v| tape.leaf(v));
        tape.dot(&parts, &weights)
    };
    let values = [0.7, -0.4, 1.9];
    let mut tape = Tape::new(true);
    let y = compute(&mut tape, values);
    let got = tape.gradients(y, 3);
    for i in 0..3 {
        let at = |step: f64| {
            let (mut tape, mut values) = (Tape::new(false), values);
            values[i] += step;
            let y = compute(&mut tape, values);
            tape.value(y)
        };
        // The error of the difference is of the order of step^2 = 1e-10.
        let want = (at(1e-5) - at(-1e-5)) / 2e-5;
        assert!((got[i] - want).abs() <= 1e-8 * want.abs(), "[{i}] is {}, two points say {want}", got[i]);
    }
}
