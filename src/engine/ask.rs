//! Questions to a worker: closures that it runs between two batches, on its own thread, so that its part of the fleet needs
//! no lock.

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tokio::sync::oneshot;

/// Work to be done on the owner's thread.
pub type Ask<T> = Box<dyn FnOnce(&mut T) + Send>;

/// Questions that may wait; a console has one under way at a time.
const WAITING: usize = 64;

/// The asking end. Cheap to clone.
pub struct Asker<T>(Sender<Ask<T>>);

impl<T> Clone for Asker<T> {
    fn clone(&self) -> Self {
        Asker(self.0.clone())
    }
}

/// A channel of questions: the asking end, and the owner's end.
pub fn channel<T>() -> (Asker<T>, Receiver<Ask<T>>) {
    let (sender, receiver) = bounded(WAITING);
    (Asker(sender), receiver)
}

impl<T: 'static> Asker<T> {
    /// Runs `question` on the owner's thread. `None` if the owner is gone, or has too many questions waiting.
    pub async fn ask<R: Send + 'static>(&self, question: impl FnOnce(&mut T) -> R + Send + 'static) -> Option<R> {
        let (answer, answered) = oneshot::channel();
        let ask: Ask<T> = Box::new(move |owner| {
            // Nobody waits any more: the answer is not needed.
            let _ = answer.send(question(owner));
        });
        match self.0.try_send(ask) {
            Ok(()) => answered.await.ok(),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => None,
        }
    }
    /// The same, from a thread that may wait; waits for room too.
    pub fn ask_and_wait<R: Send + 'static>(&self, question: impl FnOnce(&mut T) -> R + Send + 'static) -> Option<R> {
        let (answer, answered) = bounded(1);
        let ask: Ask<T> = Box::new(move |owner| {
            let _ = answer.send(question(owner));
        });
        self.0.send(ask).ok()?;
        answered.recv().ok()
    }
}
