//! Which commands a load is made of.

use std::str::FromStr;

use bytes::BytesMut;
use resp::encode_request;

/// One kind of command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `SET key value`
    Set,
    /// `GET key`
    Get,
    /// `INCR counter`; counters have keys of their own.
    Incr,
    /// `MSET` of ten keys.
    Mset10,
}

impl Kind {
    /// In the order of [`Kind::position`].
    pub const ALL: [Kind; 4] = [Kind::Set, Kind::Get, Kind::Incr, Kind::Mset10];

    /// As written in `--mix`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Set => "set",
            Kind::Get => "get",
            Kind::Incr => "incr",
            Kind::Mset10 => "mset10",
        }
    }

    /// Place in [`Kind::ALL`].
    pub fn position(self) -> usize {
        self as usize
    }

    /// It changes something.
    pub fn writes(self) -> bool {
        self != Kind::Get
    }
}

/// Kinds with their weights, at least one above 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix {
    weights: Vec<(Kind, u32)>,
    total: u32,
}

impl Mix {
    /// A kind, as often as its weight says.
    pub fn choose(&self, random: &mut fastrand::Rng) -> Kind {
        let mut at = random.u32(0..self.total);
        for (kind, weight) in &self.weights {
            if at < *weight {
                return *kind;
            }
            at -= weight;
        }
        unreachable!("{at} is past all weights of {self:?}")
    }

    /// It changes something.
    pub fn writes(&self) -> bool {
        self.weights.iter().any(|(kind, _)| kind.writes())
    }

    /// It reads something.
    pub fn reads(&self) -> bool {
        self.weights.iter().any(|(kind, _)| !kind.writes())
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Mix, String> {
        let mut weights = Vec::new();
        let mut total: u32 = 0;
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let kind = Kind::ALL
                .into_iter()
                .find(|kind| kind.name() == name.trim())
                .ok_or(format!("no command \"{name}\"; known are set, get, incr, mset10"))?;
            let weight: u32 = weight
                .trim()
                .parse()
                .map_err(|_| format!("\"{part}\" has no weight; write for example {name}=50"))?;
            total = total.checked_add(weight).ok_or("the weights are too large")?;
            if weight > 0 {
                weights.push((kind, weight));
            }
        }
        if total == 0 {
            return Err("all weights are 0".to_string());
        }
        Ok(Mix { weights, total })
    }
}

/// Appends one command with random keys. Key names have the same length, whatever their number.
pub fn write_command(
    buffer: &mut BytesMut,
    kind: Kind,
    random: &mut fastrand::Rng,
    keys: u64,
    value: &[u8],
) {
    let mut key = || key_name(random.u64(0..keys));
    match kind {
        Kind::Set => encode_request(&[b"SET", &key()[..], value], buffer),
        Kind::Get => encode_request(&[b"GET", &key()[..]], buffer),
        Kind::Incr => {
            let mut counter = key();
            counter[..3].copy_from_slice(b"cnt");
            encode_request(&[b"INCR", &counter[..]], buffer);
        }
        Kind::Mset10 => {
            let names: [[u8; KEY_BYTES]; 10] = std::array::from_fn(|_| key());
            let mut arguments: Vec<&[u8]> = vec![b"MSET"];
            arguments.extend(names.iter().flat_map(|name| [&name[..], value]));
            encode_request(&arguments, buffer);
        }
    }
}

const KEY_BYTES: usize = 16;

/// `key:` and twelve digits.
pub fn key_name(number: u64) -> [u8; KEY_BYTES] {
    let mut name = *b"key:000000000000";
    let mut left = number;
    for digit in name[4..].iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_chosen_by_weight() {
        let mix: Mix = "set=25,get=75".parse().expect("a mix");
        assert!(mix.writes() && mix.reads());
        let mut random = fastrand::Rng::with_seed(7);
        let gets = (0..10_000).filter(|_| mix.choose(&mut random) == Kind::Get).count();
        assert!((7_000..8_000).contains(&gets), "{gets} of 10000");
        assert!(!"get".parse::<Mix>().expect("a mix").writes());
    }

    #[test]
    fn a_wrong_mix_says_what_to_write() {
        let error = |text: &str| text.parse::<Mix>().expect_err("wrong");
        assert_eq!(error("put=1"), "no command \"put\"; known are set, get, incr, mset10");
        assert_eq!(error("set=x"), "\"set=x\" has no weight; write for example set=50");
        assert_eq!(error("set=0"), "all weights are 0");
    }

    #[test]
    fn commands_are_written_as_clients_send_them() {
        let mut buffer = BytesMut::new();
        write_command(&mut buffer, Kind::Set, &mut fastrand::Rng::with_seed(1), 1, b"v");
        assert_eq!(&buffer[..], b"*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000000\r\n$1\r\nv\r\n");
        assert_eq!(&key_name(120), b"key:000000000120");
    }
}
