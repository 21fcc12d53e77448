use std::sync::Arc;
use std::time::Duration;

use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};
use tokio::time::timeout;

use super::error::BrokerError;
use super::names::Names;
use super::topology;
use crate::config::BrokerConfig;

const CONNECT: Duration = Duration::from_secs(5);
const CLOSE: Duration = Duration::from_secs(2);
/// Seconds between heartbeats: a dead peer is noticed after twice that.
const HEARTBEAT: u16 = 10;

/// Everything that an attempt to connect needs.
pub(super) struct Dial {
    uri: AMQPUri,
    address: String,
    pub(super) name: String,
    names: Names,
}

impl Dial {
    pub(super) fn new(config: &BrokerConfig, name: &str) -> Result<Self, BrokerError> {
        // The parser's own text is left out: it quotes the URL, password and all.
        let parsed: Result<AMQPUri, String> = config.url.expose().parse();
        let mut uri = parsed.map_err(|_text| BrokerError::Url)?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        Ok(Self {
            address: format!("{}:{}", uri.authority.host, uri.authority.port),
            uri,
            name: name.to_owned(),
            names: Names::new(&config.prefix),
        })
    }

    /// With frames of this size at most: the library keeps 64 of them for each connection.
    pub(super) fn with_frames_of(mut self, bytes: u32) -> Self {
        self.uri.query.frame_max.get_or_insert(bytes);
        self
    }

    pub(super) async fn connect(&self) -> Result<Arc<Connection>, BrokerError> {
        let connection = self.connect_bare().await?;
        topology::declare(&connection, &self.names).await?;
        Ok(Arc::new(connection))
    }

    async fn connect_bare(&self) -> Result<Connection, BrokerError> {
        install_tls();
        let properties =
            ConnectionProperties::default().with_connection_name(self.name.as_str().into());
        // The library ignores the URL's own connection_timeout.
        match timeout(
            CONNECT,
            Connection::connect_uri(self.uri.clone(), properties),
        )
        .await
        {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(BrokerError::connecting(&self.address, &error)),
            Err(_elapsed) => Err(BrokerError::Unreachable {
                address: self.address.clone(),
                reason: format!("no answer within {} s", CONNECT.as_secs()),
            }),
        }
    }
}

/// A connection without anybody who would bring it back, for a single errand.
pub(super) async fn connect_once(
    config: &BrokerConfig,
    name: &str,
) -> Result<Connection, BrokerError> {
    Dial::new(config, name)?.connect_bare().await
}

/// Says goodbye, in bounded time: on a connection that hangs, closing hangs too.
pub(super) async fn close(connection: &Connection) {
    let goodbye = async {
        // Acknowledgements are written by tasks of the library, which do not hold up a close. They
        // are through when the answer to a later question is there.
        connection.create_channel().await?;
        connection.close(200, "bye".into()).await
    };
    match timeout(CLOSE, goodbye).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the connection was closed already"),
        Err(_elapsed) => tracing::debug!("the broker did not answer the goodbye"),
    }
}

fn install_tls() {
    let ring = rustls::crypto::ring::default_provider;
    let installed = rustls::crypto::CryptoProvider::get_default().is_some();
    if !installed && ring().install_default().is_err() {
        tracing::debug!("a TLS provider was installed meanwhile");
    }
}
