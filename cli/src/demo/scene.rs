//! What a frame shows: a grid of enlarged digits on a plain background. Pure: bytes in, bytes out.

use std::ops::Range;

use super::digits::{Digits, Image, SIDE};

/// Rows of a frame.
pub(super) const HEIGHT: usize = 1080;
/// Columns of a frame.
pub(super) const WIDTH: usize = 1920;
/// Red, green, blue.
pub(super) const CHANNELS: usize = 3;
/// Bytes of a frame.
pub(super) const FRAME_BYTES: usize = HEIGHT * LINE_BYTES;
/// Digits in a frame.
pub(super) const DIGITS: usize = ROWS * COLUMNS;

const ROWS: usize = 4;
const COLUMNS: usize = 8;
/// Each pixel of a digit becomes a square of this many rows and columns.
const SCALE: usize = 12;
const LINE_BYTES: usize = WIDTH * CHANNELS;
/// Bytes of one line of a digit in a frame.
const DIGIT_LINE_BYTES: usize = SIDE * SCALE * CHANNELS;
const BACKGROUND: [u8; CHANNELS] = [24, 48, 96];

/// Index of the image that frame number `frame` shows at `place`: all images in turn.
pub(super) fn index_of(frame: u64, place: usize) -> u64 {
    frame.wrapping_mul(DIGITS as u64).wrapping_add(place as u64)
}

/// Fills a whole frame with the background.
pub(super) fn paint_background(frame: &mut [u8]) {
    frame.as_chunks_mut().0.fill(BACKGROUND);
}

/// Draws the digits of frame number `number` over those of whatever frame was there before.
pub(super) fn draw_digits(frame: &mut [u8], digits: &Digits, number: u64) {
    for place in 0..DIGITS {
        draw(frame, place, digits.image(index_of(number, place)));
    }
}

/// Cuts the digits out of a frame: `batch` gets f32 `[DIGITS, 1, SIDE, SIDE]`, ink 1, background 0.
pub(super) fn cut_out_digits(frame: &[u8], batch: &mut [f32]) {
    for (place, image) in batch.as_chunks_mut::<{ SIDE * SIDE }>().0.iter_mut().enumerate().take(DIGITS) {
        cut_out(frame, place, image);
    }
}

fn draw(frame: &mut [u8], place: usize, image: &Image) {
    for (row, pixels) in image.as_chunks::<SIDE>().0.iter().enumerate() {
        let first = line(place, row * SCALE);
        for (column, &ink) in pixels.iter().enumerate() {
            let start = first.start + column * SCALE * CHANNELS;
            frame[start..start + SCALE * CHANNELS].fill(ink);
        }
        for repeated in 1..SCALE {
            frame.copy_within(first.clone(), line(place, row * SCALE + repeated).start);
        }
    }
}

/// Each pixel of the image is the mean of the square that it was enlarged to.
fn cut_out(frame: &[u8], place: usize, image: &mut [f32]) {
    const FULL_INK: f32 = (SCALE * SCALE * CHANNELS * 255) as f32;
    for (row, pixels) in image.as_chunks_mut::<SIDE>().0.iter_mut().enumerate() {
        let mut sums = [0u32; SIDE];
        for repeated in 0..SCALE {
            let squares = frame[line(place, row * SCALE + repeated)].as_chunks::<{ SCALE * CHANNELS }>().0;
            for (sum, square) in sums.iter_mut().zip(squares) {
                *sum += square.iter().map(|&byte| u32::from(byte)).sum::<u32>();
            }
        }
        for (pixel, sum) in pixels.iter_mut().zip(sums) {
            *pixel = sum as f32 / FULL_INK;
        }
    }
}

/// Where in a frame line number `line` of the digit at `place` lies.
fn line(place: usize, line: usize) -> Range<usize> {
    const CELL_HEIGHT: usize = HEIGHT / ROWS;
    const CELL_WIDTH: usize = WIDTH / COLUMNS;
    const MARGIN_ABOVE: usize = (CELL_HEIGHT - SIDE * SCALE) / 2;
    const MARGIN_LEFT: usize = (CELL_WIDTH - SIDE * SCALE) / 2;
    let y = place / COLUMNS * CELL_HEIGHT + MARGIN_ABOVE + line;
    let x = place % COLUMNS * CELL_WIDTH + MARGIN_LEFT;
    let start = y * LINE_BYTES + x * CHANNELS;
    start..start + DIGIT_LINE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> Vec<u8> {
        let mut frame = vec![0; FRAME_BYTES];
        paint_background(&mut frame);
        frame
    }

    #[test]
    fn what_was_drawn_is_cut_out_again() {
        let digits = Digits::load().unwrap();
        let mut frame = fresh();
        let mut batch = vec![f32::NAN; DIGITS * SIDE * SIDE];
        let frames = digits.len().div_ceil(DIGITS) as u64;
        for number in 0..frames {
            draw_digits(&mut frame, &digits, number);
            cut_out_digits(&frame, &mut batch);
            for (place, image) in batch.as_chunks::<{ SIDE * SIDE }>().0.iter().enumerate() {
                let bytes: Vec<u8> = image.iter().map(|value| (value * 255.0).round() as u8).collect();
                assert_eq!(bytes, digits.image(index_of(number, place)), "frame {number}, place {place}");
            }
        }
    }

    #[test]
    fn a_frame_does_not_depend_on_the_one_before_it() {
        let digits = Digits::load().unwrap();
        let (mut reused, mut new) = (fresh(), fresh());
        draw_digits(&mut reused, &digits, 3);
        draw_digits(&mut reused, &digits, 4);
        draw_digits(&mut new, &digits, 4);
        assert!(reused == new);
    }

    #[test]
    fn digits_lie_apart_and_inside_the_frame() {
        let digits = Digits::load().unwrap();
        let mut frame = fresh();
        draw_digits(&mut frame, &digits, 0);
        let background = frame.as_chunks().0.iter().filter(|&&pixel| pixel == BACKGROUND).count();
        assert_eq!(background, HEIGHT * WIDTH - DIGITS * SIDE * SIDE * SCALE * SCALE);
        assert_eq!(frame[..CHANNELS], BACKGROUND);
        assert_eq!(frame[FRAME_BYTES - CHANNELS..], BACKGROUND);
    }
}
