//! Bytes in a tool's result: whether models can look at them, can read them, or are told of them.
//! Pure.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

use crate::chat::Media;

/// The most images and documents of one result.
const MOST: usize = 16;
/// The longest name, in characters.
const MAX_NAME_CHARS: usize = 64;

/// Some servers leave the padding out, or use the alphabet of addresses.
static LENIENT: LazyLock<[GeneralPurpose; 2]> = LazyLock::new(|| {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [
        GeneralPurpose::new(&alphabet::STANDARD, config),
        GeneralPurpose::new(&alphabet::URL_SAFE, config),
    ]
});

/// What bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bytes {
    /// Something that models can look at.
    Shown(Media, usize),
    /// Text after all.
    Text(String),
    /// Something else; its size, and why it is not shown.
    Other(usize, &'static str),
}

/// How much of one result may still be shown.
#[derive(Debug)]
pub(super) struct Room {
    left: usize,
    bytes: usize,
}

impl Room {
    /// For a result of which `bytes` bytes may be shown, before they are base64.
    pub(super) fn new(bytes: usize) -> Self {
        Self { left: MOST, bytes }
    }

    /// Reads `data`, which is said to be `mime_type` and to be found at `uri`.
    ///
    /// What the bytes say counts, not what is said of them: a provider refuses a whole request, and
    /// every later one of the conversation, for an image that is none.
    pub(super) fn read(&mut self, data: &str, mime_type: &str, uri: Option<&str>) -> Bytes {
        let Some(bytes) = decode(data) else {
            return Bytes::Other(data.len(), "no base64");
        };
        let size = bytes.len();
        let Some(found) = sniff(&bytes) else {
            let text = is_text(mime_type).then(|| String::from_utf8(bytes).ok());
            return text
                .flatten()
                .map_or(Bytes::Other(size, "not shown"), Bytes::Text);
        };
        if self.left == 0 {
            return Bytes::Other(size, "not shown: there are too many");
        }
        let Some(bytes_left) = self.bytes.checked_sub(size) else {
            return Bytes::Other(size, "not shown: too large");
        };
        (self.left, self.bytes) = (self.left - 1, bytes_left);
        let media = Media {
            mime_type: found.to_owned(),
            data: STANDARD.encode(&bytes),
            name: uri.and_then(name),
        };
        Bytes::Shown(media, size)
    }
}

fn decode(data: &str) -> Option<Vec<u8>> {
    let blank = |byte: &u8| byte.is_ascii_whitespace();
    if data.bytes().any(|byte| blank(&byte)) {
        let mut packed = data.as_bytes().to_vec();
        packed.retain(|byte| !blank(byte));
        return decode_any(&packed);
    }
    decode_any(data.as_bytes())
}

fn decode_any(data: &[u8]) -> Option<Vec<u8>> {
    let decoded = LENIENT.iter().find_map(|engine| engine.decode(data).ok());
    decoded.filter(|bytes| !bytes.is_empty())
}

/// What models can look at, by its first bytes.
fn sniff(bytes: &[u8]) -> Option<&'static str> {
    let starts = |magic: &[u8]| bytes.starts_with(magic);
    if starts(b"\x89PNG\r\n\x1a\n") {
        Some("image/png")
    } else if starts(b"\xff\xd8\xff") {
        Some("image/jpeg")
    } else if starts(b"GIF87a") || starts(b"GIF89a") {
        Some("image/gif")
    } else if starts(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        Some("image/webp")
    } else if starts(b"%PDF-") {
        Some("application/pdf")
    } else {
        None
    }
}

/// Whether bytes of this type are text: also drawings, which are XML.
fn is_text(mime_type: &str) -> bool {
    let kind = mime_type.split(';').next().unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    kind.starts_with("text/")
        || kind.ends_with("+xml")
        || kind.ends_with("+json")
        || [
            "application/json",
            "application/xml",
            "application/yaml",
            "application/toml",
            "application/javascript",
            "application/sql",
        ]
        .contains(&kind.as_str())
}

/// The last part of an address.
fn name(uri: &str) -> Option<String> {
    let path = uri.split(['?', '#']).next().unwrap_or_default();
    let last = path.trim_end_matches('/').rsplit('/').next()?;
    let plain = |char: char| char.is_alphanumeric() || "._- ".contains(char);
    let name: String = last
        .chars()
        .take(MAX_NAME_CHARS)
        .map(|char| if plain(char) { char } else { '_' })
        .collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\nrest";

    fn read(bytes: &[u8], mime_type: &str) -> Bytes {
        let uri = Some("file:///a/b%20c.png?x=1");
        Room::new(100).read(&STANDARD.encode(bytes), mime_type, uri)
    }

    #[test]
    fn the_bytes_say_what_they_are() {
        let cases: [(&[u8], &str); 5] = [
            (PNG, "image/png"),
            (b"\xff\xd8\xff\xe0", "image/jpeg"),
            (b"GIF89a..", "image/gif"),
            (b"RIFF....WEBPVP8 ", "image/webp"),
            (b"%PDF-1.7", "application/pdf"),
        ];
        for (bytes, found) in cases {
            let Bytes::Shown(media, size) = read(bytes, "image/x-wrong") else {
                panic!("{found} is not shown");
            };
            assert_eq!((media.mime_type.as_str(), size), (found, bytes.len()));
            assert_eq!(media.data, STANDARD.encode(bytes));
            assert_eq!(media.name.as_deref(), Some("b_20c.png"));
        }
        assert_eq!(read(b"ABC", "image/png"), Bytes::Other(3, "not shown"));
    }

    #[test]
    fn text_in_disguise_is_text() {
        assert_eq!(
            read(b"<svg/>", "image/svg+xml"),
            Bytes::Text("<svg/>".to_owned())
        );
        assert_eq!(
            read("grüße".as_bytes(), "text/plain; charset=utf-8"),
            Bytes::Text("grüße".to_owned())
        );
        assert_eq!(
            read(b"\xff\xfe", "text/plain"),
            Bytes::Other(2, "not shown")
        );
    }

    #[test]
    fn base64_is_read_in_every_dress_and_written_in_one() {
        let plain = STANDARD.encode([PNG, &[0xfb, 0xff, 0xfe, 1]].concat());
        let (unpadded, url) = (
            plain.trim_end_matches('='),
            plain.replace('/', "_").replace('+', "-"),
        );
        let broken = format!("{}\r\n {}", &plain[..7], &plain[7..]);
        assert_ne!(url, plain, "nothing is told by this");
        for dressed in [&plain, unpadded, &url, &broken] {
            let Bytes::Shown(media, _) = Room::new(100).read(dressed, "", None) else {
                panic!("{dressed} is not read");
            };
            assert_eq!(media.data, plain);
        }
        for wrong in ["", "!", "A", "data:image/png;base64,AAAA"] {
            assert_eq!(
                Room::new(100).read(wrong, "image/png", None),
                Bytes::Other(wrong.len(), "no base64")
            );
        }
    }

    #[test]
    fn room_is_bounded_in_number_and_in_bytes() {
        let data = STANDARD.encode(PNG);
        let shown = |room: &mut Room| matches!(room.read(&data, "", None), Bytes::Shown(..));
        let mut room = Room::new(2 * PNG.len() + 1);
        assert_eq!([(); 3].map(|()| shown(&mut room)), [true, true, false]);
        let mut room = Room::new(1000 * PNG.len());
        assert_eq!((0..100).filter(|_| shown(&mut room)).count(), MOST);
    }
}
