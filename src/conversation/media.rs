//! How much of what tools show goes into one prompt.

use std::sync::Arc;

use crate::chat::{Content, Message, Part, PromptMessage};

/// The most images and documents of one prompt; some providers take no more.
const MOST: usize = 20;
/// The most base64 of one prompt, in bytes: providers refuse a whole request for more.
const MOST_BYTES: usize = 20 * 1024 * 1024;

/// What stands for an image of an earlier turn that is not sent again.
const LEFT_OUT: &str = "[an image, shown earlier]";

/// Leaves the newest of what tools show in `lines`, as much as providers take. What is left out is
/// still known by its marks in the results' texts.
pub(super) fn keep_newest(lines: &mut [PromptMessage]) {
    let (mut left, mut bytes_left) = (MOST, MOST_BYTES);
    for line in lines.iter_mut().rev() {
        let PromptMessage::Tool { media, .. } = line else {
            continue;
        };
        let bytes: usize = media.iter().map(|media| media.data.len()).sum();
        let fits = left
            .checked_sub(media.len())
            .zip(bytes_left.checked_sub(bytes));
        // All of one result or nothing, and nothing older: no prompt is a patchwork.
        if fits.is_none() {
            *media = Arc::default();
        }
        (left, bytes_left) = fits.unwrap_or((0, 0));
    }
}

/// Leaves the newest images of earlier turns, as many as a prompt takes beside those that the job
/// itself shows; a note stands for the others.
pub(super) fn keep_newest_images(said: &[Arc<Message>], turns: &mut [Vec<PromptMessage>]) {
    let (mut left, mut bytes_left) = (MOST, MOST_BYTES);
    for message in said {
        for url in images(message) {
            left = left.saturating_sub(1);
            bytes_left = bytes_left.saturating_sub(url.len());
        }
    }
    for line in turns
        .iter_mut()
        .rev()
        .flat_map(|turn| turn.iter_mut().rev())
    {
        let PromptMessage::Given(message) = line else {
            continue;
        };
        let (count, bytes) =
            images(message).fold((0, 0), |(count, bytes), url| (count + 1, bytes + url.len()));
        if let (Some(fewer), Some(less)) = (left.checked_sub(count), bytes_left.checked_sub(bytes))
        {
            (left, bytes_left) = (fewer, less);
        } else {
            *message = Arc::new(without_images(message));
            (left, bytes_left) = (0, 0);
        }
    }
}

fn images(message: &Message) -> impl Iterator<Item = &str> {
    let parts = match &message.content {
        Content::Text(_) => &[][..],
        Content::Parts(parts) => parts,
    };
    parts.iter().filter_map(|part| match part {
        Part::Text { .. } => None,
        Part::ImageUrl { image_url } => Some(image_url.url.as_str()),
    })
}

fn without_images(message: &Message) -> Message {
    let content = match &message.content {
        Content::Text(text) => Content::Text(text.clone()),
        Content::Parts(parts) => {
            let part = |part: &Part| match part {
                Part::Text { text } => Part::Text { text: text.clone() },
                Part::ImageUrl { .. } => Part::Text {
                    text: LEFT_OUT.to_owned(),
                },
            };
            Content::Parts(parts.iter().map(part).collect())
        }
    };
    Message {
        role: message.role,
        content,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Media;

    fn line(media: usize, bytes: usize) -> PromptMessage {
        let one = || Media {
            mime_type: "image/png".into(),
            data: "A".repeat(bytes),
            name: None,
        };
        PromptMessage::Tool {
            call_id: String::new(),
            content: "[image]".into(),
            media: (0..media).map(|_| one()).collect(),
        }
    }

    fn kept(mut lines: Vec<PromptMessage>) -> Vec<usize> {
        keep_newest(&mut lines);
        let count = |line: &PromptMessage| match line {
            PromptMessage::Tool { media, .. } => media.len(),
            PromptMessage::System(_)
            | PromptMessage::Given(_)
            | PromptMessage::Assistant { .. } => 99,
        };
        lines.iter().map(count).collect()
    }

    #[test]
    fn the_newest_are_kept_and_nothing_older_than_what_does_not_fit() {
        let rules = PromptMessage::System("rules".into());
        let lines = vec![
            rules,
            line(1, 4),
            line(15, 4),
            line(0, 0),
            line(8, 4),
            line(2, 4),
        ];
        assert_eq!(kept(lines), [99, 0, 0, 0, 8, 2]);
        assert_eq!(kept(vec![line(10, 4), line(10, 4)]), [10, 10]);
    }

    #[test]
    fn bytes_count_as_well() {
        let half = MOST_BYTES / 2;
        assert_eq!(kept(vec![line(1, half), line(1, half)]), [1, 1]);
        assert_eq!(
            kept(vec![line(1, 4), line(1, half + 4), line(1, half)]),
            [0, 0, 1]
        );
    }
}
