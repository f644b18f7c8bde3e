//! Where a stream asks that its proxy be entered as a WorkloadEntry. Who answers, and by what, is not here.

use tokio::sync::{mpsc, oneshot};

use crate::config::Key;
use crate::model::registration::{Entrant, Refused};

/// What a stream says of its proxy's entry.
#[derive(Debug)]
pub enum Registration {
    Enter(Box<Entrant>, oneshot::Sender<Result<Key, Refused>>),
    /// The stream ended; others of the same proxy may go on.
    Leave(Key),
}

/// Registrations that wait; streams that bring more wait too.
pub const WAITING: usize = 256;

/// Nobody keeps entries where it leads nowhere.
#[derive(Clone, Debug, Default)]
pub struct Registrar(Option<mpsc::Sender<Registration>>);

impl Registrar {
    pub fn new(kept: mpsc::Sender<Registration>) -> Self {
        Self(Some(kept))
    }

    pub async fn enter(&self, entrant: Entrant) -> Result<Key, Refused> {
        let Some(kept) = &self.0 else {
            return Err(Refused::Elsewhere);
        };
        let (reply, answer) = oneshot::channel();
        let asked = Registration::Enter(Box::new(entrant), reply);
        kept.send(asked).await.map_err(|_| Refused::Ending)?;
        answer.await.unwrap_or(Err(Refused::Ending))
    }

    pub async fn leave(&self, key: Key) {
        if let Some(kept) = &self.0 {
            // With the program everything ends.
            drop(kept.send(Registration::Leave(key)).await);
        }
    }
}
