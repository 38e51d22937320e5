//! Whether an external broker can be used, tried once: for those who check a set-up before they run it.

use std::time::Duration;

use rumqttc::mqttbytes::v4::Packet;
use rumqttc::{AsyncClient, Event};

use super::Broker;
use crate::text::harmless;

impl Broker {
    /// Connects with the user and password, under a client id and with a session of its own, so that nobody's messages are
    /// touched, and leaves again.
    ///
    /// # Errors
    /// Why it does not work, in the client library's words, harmless.
    pub async fn probe(&self, patience: Duration) -> Result<(), String> {
        if !self.is_ready() {
            return Err("nobody said which authorities to believe".into());
        }
        let client_id = format!("dashlight-doctor-{}", std::process::id());
        let mut settings = self.settings(&client_id);
        settings.set_clean_session(true);
        let (client, mut events) = AsyncClient::new(settings, 1);
        let connected = async {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => return Ok(()),
                    Ok(_) => {}
                    Err(error) => return Err(harmless(&error.to_string(), 200).into_owned()),
                }
            }
        };
        match tokio::time::timeout(patience, connected).await {
            Err(_) => Err(format!("no answer within {} s", patience.as_secs())),
            Ok(Err(reason)) => Err(reason),
            Ok(Ok(())) => {
                // To leave is a courtesy: the broker notices the closed connection anyway.
                if client.try_disconnect().is_ok() {
                    let _ = tokio::time::timeout(Duration::from_secs(1), events.poll()).await;
                }
                Ok(())
            }
        }
    }
}
