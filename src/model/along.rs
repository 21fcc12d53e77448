use std::fmt;

use futures_util::future::BoxFuture;

use super::stream::Ear;

/// Says when an attempt may be made. It is asked before each one, when nothing else holds it back: what
/// it counts leaves at once.
pub trait Permit: Sync {
    /// Waits until an attempt may be made. False: not now, and the call is given up
    /// ([`ModelError::NotPermitted`](super::ModelError::NotPermitted)).
    fn attempt(&self) -> BoxFuture<'_, bool>;
}

/// Who goes along with a call.
#[derive(Clone, Copy, Default)]
pub struct Along<'a> {
    /// Who hears how it goes.
    pub ear: Option<&'a Ear>,
    /// Who says when it may be made.
    pub permit: Option<&'a dyn Permit>,
    /// How often it was tried in vain before: the more, the less it is tried in place. Who asks again and again makes
    /// the trouble of a server greater.
    pub before: u32,
}

impl fmt::Debug for Along<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Along")
            .field("ear", &self.ear)
            .finish_non_exhaustive()
    }
}
