//! Shuffling and splitting: functions of (seed, epoch, i, n).

use lichen_trainer::data::{DataOptions, Dataset, Permutation, Purpose};

use crate::support::{open, plain};

/// Row i holds id i.
fn rows(n: usize) -> String {
    (0..n).map(|i| format!("{{\"input_ids\": [1, {i}]}}\n")).collect()
}

fn lines(dataset: &Dataset, epoch: u64) -> Vec<usize> {
    (0..dataset.n_train()).map(|i| dataset.train(epoch, i).unwrap().line).collect()
}

#[test]
fn an_epoch_has_every_row_once() {
    for n in [1, 2, 3, 17, 300] {
        let options = DataOptions { shuffle: true, seed: 5, ..plain() };
        let dataset = open(rows(n).as_bytes(), None, &options).unwrap();
        let permutation = Permutation::new(n, 5, Purpose::Epoch(9));
        let order = lines(&dataset, 9);
        assert!(order.iter().enumerate().all(|(i, &line)| line == permutation.at(i) + 1));
        assert_eq!(order, lines(&dataset, 9));
        assert!(n < 17 || order != lines(&dataset, 10));
        let plain = open(rows(n).as_bytes(), None, &plain()).unwrap();
        assert!(lines(&plain, 3).into_iter().eq(1..=n));
        for i in 0..n {
            let sample = dataset.train(9, i).unwrap();
            assert_eq!(dataset.train_size(9, i).n_tokens, sample.ids.len());
        }
    }
}

#[test]
fn the_evaluation_is_drawn_by_row_number() {
    for (n, eval_split, n_eval) in [(1, 0.5, 0), (2, 0.01, 1), (10, 0.25, 3), (100, 0.1, 10), (300, 0.0, 0)] {
        let options = DataOptions { eval_split, seed: 11, ..plain() };
        let dataset = open(rows(n).as_bytes(), None, &options).unwrap();
        assert_eq!((dataset.n_train(), dataset.n_eval()), (n - n_eval, n_eval));
        let eval: Vec<usize> = (0..n_eval).map(|i| dataset.eval(i).unwrap().line).collect();
        let permutation = Permutation::new(n, 11, Purpose::EvalSplit);
        let mut expected: Vec<usize> = (0..n_eval).map(|i| permutation.at(i) + 1).collect();
        expected.sort_unstable();
        assert_eq!(eval, expected);
        let train = lines(&dataset, 0);
        assert!(train.iter().all(|line| !eval.contains(line)) && train.is_sorted());
        assert_eq!(train.len() + eval.len(), n);
        // Only the usable rows count, and blank lines move nothing.
        let spaced = rows(n).replace('\n', "\n\n");
        let spaced = open(spaced.as_bytes(), None, &options).unwrap();
        let again: Vec<usize> = (0..n_eval).map(|i| spaced.eval(i).unwrap().line / 2 + 1).collect();
        assert_eq!(again, eval);
    }
}
