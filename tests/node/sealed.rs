//! Numbers that show whether they are whole: a seed, noise that follows from it, and their sum.

/// At least two numbers.
pub(crate) fn seal(numbers: &mut [u64], seed: u64) {
    let (last, rest) = numbers.split_last_mut().expect("two numbers");
    for (i, number) in (0..).zip(rest.iter_mut()) {
        *number = noise(seed, i);
    }
    *last = sum(rest);
}

/// The seed, if every number is the one that was written together with it.
pub(crate) fn opened(numbers: &[u64]) -> Option<u64> {
    let (last, rest) = numbers.split_last()?;
    let seed = *rest.first()?;
    let is_whole = (0..).zip(rest).all(|(i, &number)| number == noise(seed, i)) && *last == sum(rest);
    is_whole.then_some(seed)
}

fn noise(seed: u64, i: u64) -> u64 {
    seed ^ i.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn sum(numbers: &[u64]) -> u64 {
    numbers.iter().fold(1, |sum: u64, number| sum.rotate_left(1).wrapping_add(*number))
}
