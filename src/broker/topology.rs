use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind};
use tokio::time::timeout;

use super::error::{BrokerError, protocol_code};
use super::names::Names;

/// How long one question to the broker may take.
pub(super) const ANSWER: Duration = Duration::from_secs(10);

const NOT_FOUND: u16 = 404;
const PRECONDITION_FAILED: u16 = 406;

/// One thing that must exist.
struct Wanted<'a> {
    name: &'a str,
    what: What<'a>,
}

enum What<'a> {
    Exchange(ExchangeKind),
    Queue(Vec<(&'static str, Argument<'a>)>),
}

/// The value of a queue's argument.
#[derive(Clone, Copy)]
enum Argument<'a> {
    Text(&'a str),
    Number(i32),
}

impl Wanted<'_> {
    fn described(&self) -> String {
        match &self.what {
            What::Exchange(_) => format!("the exchange {}", self.name),
            What::Queue(_) => format!("the queue {}", self.name),
        }
    }
}

/// Looks everything up and declares what is missing, with only those arguments that the design
/// rests on: arguments cannot be changed afterwards, so all that is to be tuned is left to policies.
///
/// What an operator declared is taken as it is.
pub(super) async fn declare(connection: &Connection, names: &Names) -> Result<(), BrokerError> {
    let mut channel = open(connection).await?;
    for wanted in wanted(names) {
        if look_up(&channel, &wanted).await?.is_missing() {
            // A failed look-up closed the channel.
            channel = open(connection).await?;
            create(connection, &mut channel, &wanted).await?;
        }
    }
    bind_dead_letters(&channel, names).await;
    // Closed by hand, or each reconnect would leave a channel until the next one.
    if let Ok(Err(error)) = timeout(ANSWER, channel.close(200, "done".into())).await {
        tracing::debug!(%error, "closing the topology channel failed");
    }
    Ok(())
}

/// Whether a queue exists; asked on a channel of its own, which a "no" closes.
pub(super) async fn queue_exists(connection: &Connection, name: &str) -> Result<bool, BrokerError> {
    let channel = open(connection).await?;
    let what = What::Queue(Vec::new());
    Ok(look_up(&channel, &Wanted { name, what }).await? == Found::Present)
}

/// A channel, in bounded time.
pub(super) async fn open(connection: &Connection) -> Result<Channel, BrokerError> {
    answered(connection.create_channel())
        .await?
        .map_err(|error| BrokerError::lost(&error))
}

/// What the broker answered, in bounded time.
pub(super) async fn answered<T>(
    question: impl Future<Output = lapin::Result<T>>,
) -> Result<lapin::Result<T>, BrokerError> {
    timeout(ANSWER, question)
        .await
        .map_err(|_elapsed| BrokerError::Lost {
            reason: format!("no answer within {} s", ANSWER.as_secs()),
        })
}

fn wanted(names: &Names) -> [Wanted<'_>; 6] {
    use Argument::{Number, Text};
    // The dead letters' way first: a queue that names a missing exchange drops its dead letters.
    [
        queue_of(&names.jobs_dead, &[]),
        Wanted {
            name: &names.dlx,
            what: What::Exchange(ExchangeKind::Direct),
        },
        queue_of(
            &names.jobs,
            &[
                ("x-dead-letter-exchange", Text(&names.dlx)),
                ("x-dead-letter-routing-key", Text(&names.dead_key)),
                // At least once holds only together with reject-publish; with the default
                // overflow the broker falls back to at most once without a word
                // (https://www.rabbitmq.com/docs/quorum-queues#dead-lettering).
                ("x-dead-letter-strategy", Text("at-least-once")),
                ("x-overflow", Text("reject-publish")),
                // RabbitMQ 4's own default. Older brokers have none, and a message that the client
                // library cannot even read would end the connection again and again.
                ("x-delivery-limit", Number(20)),
            ],
        ),
        queue_of(&names.results, &[("x-overflow", Text("reject-publish"))]),
        queue_of(&names.control, &[]),
        Wanted {
            name: &names.events,
            what: What::Exchange(ExchangeKind::Topic),
        },
    ]
}

#[derive(PartialEq, Eq)]
enum Found {
    Present,
    Missing,
}

impl Found {
    fn is_missing(&self) -> bool {
        *self == Self::Missing
    }
}

async fn look_up(channel: &Channel, wanted: &Wanted<'_>) -> Result<Found, BrokerError> {
    let name = short(wanted.name)?;
    let answer = match &wanted.what {
        What::Exchange(kind) => {
            let options = ExchangeDeclareOptions {
                passive: true,
                ..ExchangeDeclareOptions::default()
            };
            let asked =
                channel.exchange_declare(name, kind.clone(), options, FieldTable::default());
            answered(asked).await?
        }
        What::Queue(_) => {
            let options = QueueDeclareOptions {
                passive: true,
                ..QueueDeclareOptions::default()
            };
            let asked = channel.queue_declare(name, options, FieldTable::default());
            answered(asked).await?.map(drop)
        }
    };
    match answer {
        Ok(()) => Ok(Found::Present),
        Err(error) if protocol_code(&error) == Some(NOT_FOUND) => Ok(Found::Missing),
        Err(error) => Err(problem(wanted, &error)),
    }
}

async fn create(
    connection: &Connection,
    channel: &mut Channel,
    wanted: &Wanted<'_>,
) -> Result<(), BrokerError> {
    let name = short(wanted.name)?;
    let answer = match &wanted.what {
        What::Exchange(kind) => {
            let options = ExchangeDeclareOptions {
                durable: true,
                ..ExchangeDeclareOptions::default()
            };
            let asked =
                channel.exchange_declare(name, kind.clone(), options, FieldTable::default());
            answered(asked).await?
        }
        What::Queue(arguments) => {
            let options = QueueDeclareOptions::durable();
            let asked = channel.queue_declare(name, options, table(arguments));
            answered(asked).await?.map(drop)
        }
    };
    let Err(error) = answer else {
        tracing::info!(what = wanted.described(), "declared");
        return Ok(());
    };
    if protocol_code(&error) != Some(PRECONDITION_FAILED) {
        return Err(problem(wanted, &error));
    }
    // Somebody declared it otherwise between the look-up and now.
    *channel = open(connection).await?;
    if look_up(channel, wanted).await?.is_missing() {
        return Err(problem(wanted, &error));
    }
    tracing::warn!(what = wanted.described(), difference = %error, "taken as it was declared");
    Ok(())
}

/// Binding is idempotent, so nobody has to look it up; without it only the broker's own dead
/// letters are held back, so a refusal stops nothing.
async fn bind_dead_letters(channel: &Channel, names: &Names) {
    let (Ok(queue), Ok(exchange), Ok(key)) = (
        short(&names.jobs_dead),
        short(&names.dlx),
        short(&names.dead_key),
    ) else {
        return;
    };
    let options = QueueBindOptions::default();
    let asked = channel.queue_bind(queue, exchange, key, options, FieldTable::default());
    let reason = match answered(asked).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::warn!(
        exchange = names.dlx,
        queue = names.jobs_dead,
        reason,
        "not bound: what the broker itself dead-letters stays in the jobs queue"
    );
}

fn queue_of<'a>(name: &'a str, more: &[(&'static str, Argument<'a>)]) -> Wanted<'a> {
    let mut arguments = vec![("x-queue-type", Argument::Text("quorum"))];
    arguments.extend_from_slice(more);
    Wanted {
        name,
        what: What::Queue(arguments),
    }
}

fn table(arguments: &[(&'static str, Argument<'_>)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        let value = match value {
            Argument::Text(text) => AMQPValue::LongString((*text).into()),
            Argument::Number(number) => AMQPValue::LongInt(*number),
        };
        table.insert((*name).into(), value);
    }
    table
}

fn problem(wanted: &Wanted<'_>, error: &lapin::Error) -> BrokerError {
    if protocol_code(error).is_none() {
        return BrokerError::lost(error);
    }
    BrokerError::Topology {
        what: wanted.described(),
        reason: error.to_string(),
    }
}

/// A name as the protocol wants it; the library's own conversion panics on a long one.
pub(super) fn short(text: &str) -> Result<lapin::types::ShortString, BrokerError> {
    lapin::types::ShortString::try_new(text).map_err(|error| BrokerError::Topology {
        what: text.chars().take(64).collect(),
        reason: error.to_string(),
    })
}
