//! The floating point numbers of INCRBYFLOAT: what the 80-bit format of x86 does, in integers.
//!
//! Redis computes with C's `long double` and prints 17 digits behind the point. Both are done here
//! without a processor's or a library's floating point, so that all nodes store the same bytes,
//! whatever they run on. A number is `mantissa * 2^exponent` with a mantissa of at most 64 bits;
//! rounding is to the nearest, ties to even.
//!
//! Left out: hexadecimal notation.

use num_bigint::BigUint;

/// Bits of a mantissa.
const MANTISSA_BITS: u64 = 64;
/// Exponent of the greatest numbers' mantissas.
const EXPONENT_MAX: i64 = 16_383 - 63;
/// Exponent of the smallest numbers' mantissas.
const EXPONENT_MIN: i64 = -16_382 - 63;
/// Digits printed behind the point, before zeros at the end are taken off.
const DIGITS_BEHIND_POINT: usize = 17;
/// Longer texts are no numbers.
const TEXT_BYTES_LIMIT: usize = 5 * 1024;
/// Decimal exponents beyond which every number is infinite, or 0.
const DECIMAL_EXPONENT_MAX: i64 = 5_000;

/// A number, possibly infinite, never "not a number".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LongDouble {
    negative: bool,
    magnitude: Magnitude,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Magnitude {
    /// `mantissa * 2^exponent`; 0 has exponent 0.
    Finite(u64, i64),
    Infinite,
}

impl LongDouble {
    /// Zero.
    pub const ZERO: LongDouble = LongDouble { negative: false, magnitude: Magnitude::Finite(0, 0) };

    /// Reads decimal notation, also with an exponent, or infinity. What is too large or too small
    /// to be anything but infinite or 0 is no number, as for `strtold`.
    pub fn parse(text: &[u8]) -> Option<LongDouble> {
        if text.len() >= TEXT_BYTES_LIMIT {
            return None;
        }
        let (negative, unsigned) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        if unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity") {
            return Some(LongDouble { negative, magnitude: Magnitude::Infinite });
        }
        let (digits, exponent) = decimal(unsigned)?;
        let Some(first) = digits.iter().position(|digit| *digit != b'0') else {
            return Some(LongDouble { negative, magnitude: Magnitude::Finite(0, 0) });
        };
        let significant = &digits[first..];
        let scale = significant.len() as i64 + exponent;
        if scale.abs() > DECIMAL_EXPONENT_MAX {
            return None;
        }
        let digits = BigUint::parse_bytes(significant, 10)?;
        let ten = |power: i64| BigUint::from(10u8).pow(power.unsigned_abs() as u32);
        let magnitude = match exponent >= 0 {
            true => rounded(&(digits * ten(exponent)), &BigUint::from(1u8)),
            false => rounded(&digits, &ten(exponent)),
        };
        match magnitude {
            Magnitude::Infinite | Magnitude::Finite(0, _) => None,
            magnitude => Some(LongDouble { negative, magnitude }),
        }
    }

    /// The sum; `None`: it is not finite.
    pub fn add(&self, other: &LongDouble) -> Option<LongDouble> {
        let (Magnitude::Finite(a, a_exponent), Magnitude::Finite(b, b_exponent)) =
            (&self.magnitude, &other.magnitude)
        else {
            return None;
        };
        let exponent = *a_exponent.min(b_exponent);
        let a = BigUint::from(*a) << (a_exponent - exponent) as u64;
        let b = BigUint::from(*b) << (b_exponent - exponent) as u64;
        let (negative, sum) = match (self.negative == other.negative, a >= b) {
            (true, _) => (self.negative, a + b),
            (false, true) => (self.negative && a != b, a - b),
            (false, false) => (other.negative, b - a),
        };
        let power = BigUint::from(1u8) << exponent.unsigned_abs();
        let magnitude = match exponent >= 0 {
            true => rounded(&(sum * power), &BigUint::from(1u8)),
            false => rounded(&sum, &power),
        };
        (magnitude != Magnitude::Infinite).then_some(LongDouble { negative, magnitude })
    }

    /// As Redis prints it: 17 digits behind the point, without zeros at the end, never `-0`.
    pub fn print(&self) -> String {
        let Magnitude::Finite(mantissa, exponent) = self.magnitude else {
            return if self.negative { "-inf" } else { "inf" }.to_owned();
        };
        let scaled = BigUint::from(mantissa) * BigUint::from(10u8).pow(DIGITS_BEHIND_POINT as u32);
        let digits = match exponent >= 0 {
            true => scaled << exponent as u64,
            false => divided(&scaled, &(BigUint::from(1u8) << exponent.unsigned_abs())),
        };
        let digits = format!("{digits:0>width$}", width = DIGITS_BEHIND_POINT + 1);
        let (whole, fraction) = digits.split_at(digits.len() - DIGITS_BEHIND_POINT);
        let fraction = fraction.trim_end_matches('0');
        let text = match fraction.is_empty() {
            true => whole.to_owned(),
            false => format!("{whole}.{fraction}"),
        };
        if self.negative && text != "0" { format!("-{text}") } else { text }
    }
}

/// The digits of a decimal number, with the power of ten that they are multiplied by.
fn decimal(text: &[u8]) -> Option<(Vec<u8>, i64)> {
    let mark = text.iter().position(|byte| byte.eq_ignore_ascii_case(&b'e'));
    let (number, exponent) = match mark {
        Some(mark) => (&text[..mark], decimal_exponent(&text[mark + 1..])?),
        None => (text, 0),
    };
    let point = number.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = match point {
        Some(point) => (&number[..point], &number[point + 1..]),
        None => (number, &[][..]),
    };
    let digits = [whole, fraction].concat();
    let valid = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    valid.then(|| (digits, exponent - fraction.len() as i64))
}

fn decimal_exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // Saturates far beyond every exponent that is looked at.
    let exponent = digits
        .iter()
        .fold(0i64, |exponent, digit| (exponent * 10 + i64::from(digit - b'0')).min(1_000_000));
    Some(if negative { -exponent } else { exponent })
}

/// The nearest mantissa and exponent to a fraction.
fn rounded(numerator: &BigUint, denominator: &BigUint) -> Magnitude {
    if numerator.bits() == 0 {
        return Magnitude::Finite(0, 0);
    }
    // One bit too many at most, or one too few; then the exponent is off by one.
    let mut exponent = numerator.bits() as i64 - denominator.bits() as i64 - MANTISSA_BITS as i64;
    exponent = exponent.max(EXPONENT_MIN);
    loop {
        let power = exponent.unsigned_abs();
        let mantissa = match exponent >= 0 {
            true => divided(numerator, &(denominator << power)),
            false => divided(&(numerator << power), denominator),
        };
        match u64::try_from(&mantissa) {
            Ok(_) if exponent > EXPONENT_MAX => return Magnitude::Infinite,
            Ok(0) => return Magnitude::Finite(0, 0),
            Ok(mantissa) => return Magnitude::Finite(mantissa, exponent),
            Err(_) => exponent += 1,
        }
    }
}

/// The nearest whole number to a quotient, the even one of two.
fn divided(numerator: &BigUint, denominator: &BigUint) -> BigUint {
    let quotient = numerator / denominator;
    let twice = (numerator - &quotient * denominator) << 1u8;
    match twice.cmp(denominator) {
        std::cmp::Ordering::Less => quotient,
        std::cmp::Ordering::Greater => quotient + 1u8,
        std::cmp::Ordering::Equal => {
            let odd = quotient.bit(0);
            if odd { quotient + 1u8 } else { quotient }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(a: &str, b: &str) -> String {
        let [a, b] = [a, b].map(|text| LongDouble::parse(text.as_bytes()).expect(text));
        a.add(&b).map_or("none".to_owned(), |sum| sum.print())
    }

    #[test]
    fn sums_are_those_of_80_bits() {
        // As redis-server answers on x86.
        for (a, b, expected) in [
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("3", "1.1", "4.1"),
            ("0.1", "0.2", "0.3"),
            ("1", "-1", "0"),
            ("-0", "0", "0"),
            ("1.5", "-3", "-1.5"),
            ("17179869184", "1.5", "17179869185.5"),
            ("1e-30", "0", "0"),
            ("1e25", "1", "10000000000000000000000000"),
        ] {
            assert_eq!(sum(a, b), expected, "{a} + {b}");
        }
    }

    #[test]
    fn mantissas_have_64_bits() {
        assert_eq!(sum("18446744073709551615", "0"), "18446744073709551615");
        // Ties go to the even one.
        assert_eq!(sum("18446744073709551616", "1"), "18446744073709551616");
        assert_eq!(sum("18446744073709551616", "3"), "18446744073709551620");
        assert_eq!(sum("36893488147419103232", "2"), "36893488147419103232");
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", " 1", "1 ", "x", "1x", "1e", "1e+", ".", "-", "nan", "1.2.3", "0x10"] {
            assert_eq!(LongDouble::parse(text.as_bytes()), None, "{text:?}");
        }
        for text in ["1e5000", "1e-6000", "1e999999999999", "2e4932"] {
            assert_eq!(LongDouble::parse(text.as_bytes()), None, "{text:?}");
        }
        for text in ["1.", ".5", "+1", "0e99999999", "1e4932", "inf", "-Infinity"] {
            assert!(LongDouble::parse(text.as_bytes()).is_some(), "{text:?}");
        }
    }

    #[test]
    fn sums_beyond_the_greatest_number_are_none() {
        assert_eq!(sum("1e4932", "1e4932"), "none");
        assert_eq!(sum("inf", "1"), "none");
    }
}
