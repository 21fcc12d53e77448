//! The images of a job's messages: where they may stand, and by which addresses.

use super::rules::refuse;
use crate::chat::{ImageUrl, Message, Part, Role};
use crate::fault::Failure;

/// The longest address of an image elsewhere, in bytes.
const MAX_URL_BYTES: usize = 8 * 1024;
/// The most base64 of one image, in bytes.
const MAX_DATA_BYTES: usize = 10 * 1024 * 1024;
/// The kinds of images that models take.
const KINDS: [&str; 4] = ["png", "jpeg", "webp", "gif"];

/// Checks one part of `message`, which stands at `pointer`.
///
/// # Errors
/// An image in a message of somebody else's than the user, or one without a usable address.
pub(super) fn check_part(message: &Message, part: &Part, pointer: &str) -> Result<(), Failure> {
    let Part::ImageUrl { image_url } = part else {
        return Ok(());
    };
    if message.role != Role::User {
        let expected = "expected text; images stand in messages of the user";
        return refuse(&format!("{pointer}/type"), expected);
    }
    check_url(image_url).or_else(|expected| refuse(&format!("{pointer}/image_url/url"), &expected))
}

/// `chat.check_image` in the migrations says the same.
fn check_url(image: &ImageUrl) -> Result<(), String> {
    let url = image.url.as_str();
    if url.is_empty() {
        return Err("expected the URL of an image, got an empty text".to_owned());
    }
    if let Some(rest) = url.strip_prefix("data:") {
        return check_data(rest);
    }
    let host = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))
        .ok_or_else(|| {
            "expected a URL that begins with https://, http:// or data:image/".to_owned()
        })?;
    if url.len() > MAX_URL_BYTES {
        return Err(format!("expected a URL of at most {MAX_URL_BYTES} bytes"));
    }
    if host.is_empty()
        || host.starts_with(['/', '?', '#'])
        || !url.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err("expected a URL with a host, in ASCII without spaces".to_owned());
    }
    Ok(())
}

fn check_data(rest: &str) -> Result<(), String> {
    let data = KINDS.iter().find_map(|kind| {
        let rest = rest.strip_prefix("image/")?.strip_prefix(kind)?;
        rest.strip_prefix(";base64,")
    });
    let Some(data) = data else {
        let kinds = KINDS.join(", ");
        return Err(format!(
            "expected data:image/…;base64,… with one of {kinds}"
        ));
    };
    if data.len() > MAX_DATA_BYTES {
        return Err(format!("expected at most {MAX_DATA_BYTES} bytes of base64"));
    }
    let bare = data.strip_suffix("==").or_else(|| data.strip_suffix('='));
    let bare = bare.unwrap_or(data);
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    if bare.is_empty() || data.len() % 4 != 0 || !bare.bytes().all(is_base64) {
        return Err("expected base64 (RFC 4648, section 4), padded".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str) -> Result<(), String> {
        check_url(&ImageUrl { url: url.into() })
    }

    #[test]
    fn images_elsewhere_and_images_in_the_message_are_taken() {
        for url in [
            "https://example.org/cat.png?size=1#top",
            "http://127.0.0.1:8080",
            "data:image/png;base64,iVBORw==",
            "data:image/jpeg;base64,/9j/4AAQ",
            "data:image/webp;base64,UklG",
            "data:image/gif;base64,R0lGODlh",
        ] {
            assert_eq!(check(url), Ok(()), "{url}");
        }
    }

    #[test]
    fn what_no_model_can_look_at_is_refused() {
        let long = format!("https://example.org/{}", "a".repeat(MAX_URL_BYTES));
        let large = format!(
            "data:image/png;base64,{}",
            "AAAA".repeat(MAX_DATA_BYTES / 4 + 1)
        );
        for (url, why) in [
            ("", "empty"),
            ("cat.png", "begins with"),
            ("file:///etc/passwd", "begins with"),
            ("HTTPS://example.org", "begins with"),
            ("https://", "a host"),
            ("https:///cat.png", "a host"),
            ("https://example.org/a cat.png", "without spaces"),
            (&long, "at most"),
            ("data:image/png,AAAA", "base64"),
            ("data:image/svg+xml;base64,AAAA", "one of png"),
            ("data:text/plain;base64,AAAA", "one of png"),
            ("data:image/png;base64,", "padded"),
            ("data:image/png;base64,AAA", "padded"),
            ("data:image/png;base64,AA-_", "padded"),
            ("data:image/png;base64,====", "padded"),
            (&large, "at most"),
        ] {
            let said = check(url).expect_err(url);
            assert!(said.contains(why), "{url:.60}: {said}");
        }
    }
}
