//! What a session looks like in Prometheus' text format. Pure.

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use tensorbus_registry::{ModelState, ProcessModels};
use tensorbus_transport::{PoolInfo, Quota, TopicInfo};

/// What was seen of a session.
pub(crate) struct Seen<'a> {
    pub(crate) session: &'a str,
    pub(crate) living: usize,
    pub(crate) dead: usize,
    pub(crate) deaths: u64,
    pub(crate) processes: &'a [ProcessModels],
    pub(crate) rejected: u64,
    pub(crate) topics: &'a [TopicInfo],
    pub(crate) quota: Option<Quota>,
}

/// Made anew each time: what is gone has no series.
pub(crate) fn text(seen: &Seen<'_>) -> prometheus::Result<String> {
    let page = Page(Registry::new_custom(
        None,
        Some([("session".to_owned(), seen.session.to_owned())].into_iter().collect()),
    )?);
    page.gauge("tensorbus_processes", "Processes that are in the session", seen.living as u64)?;
    page.gauge("tensorbus_processes_dead", "Dead processes that nobody has cleaned up after", seen.dead as u64)?;
    page.counter("tensorbus_deaths_total", "Deaths of processes since the daemon began", seen.deaths)?;
    page.counter("tensorbus_announcements_rejected_total", "Announcements that were not understood", seen.rejected)?;
    if let Some(quota) = seen.quota {
        page.gauge("tensorbus_quota_bytes", "Bytes that all pools of the session may take", quota.bytes)?;
        page.gauge("tensorbus_quota_used_bytes", "Bytes that they take", quota.used)?;
    }
    page.models(seen.processes)?;
    page.topics(seen.topics)?;
    TextEncoder::new().encode_to_string(&page.0.gather())
}

struct Page(Registry);

impl Page {
    fn gauge(&self, name: &str, help: &str, value: u64) -> prometheus::Result<()> {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(number(value));
        self.0.register(Box::new(gauge))
    }

    fn counter(&self, name: &str, help: &str, value: u64) -> prometheus::Result<()> {
        let counter = IntCounter::new(name, help)?;
        counter.inc_by(value);
        self.0.register(Box::new(counter))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(gauges.clone()))?;
        Ok(gauges)
    }

    fn models(&self, processes: &[ProcessModels]) -> prometheus::Result<()> {
        let whose = ["pid", "program", "registry"];
        let which = ["model", "device", "pid", "program", "registry"];
        let stale = self.gauges("tensorbus_registry_stale", "1 if the registry says nothing any more", &whose)?;
        let budget = self.gauges("tensorbus_registry_budget_bytes", "Bytes that its models may take", &whose)?;
        let bytes = self.gauges("tensorbus_model_bytes", "Bytes that the model takes on its device", &which)?;
        let handles = self.gauges("tensorbus_model_handles", "Handles of the model", &which)?;
        let uses = self.gauges("tensorbus_model_uses", "Handles that were given out so far", &which)?;
        let states = self.gauges("tensorbus_models", "Models by state", &["state"])?;
        for process in processes {
            let (pid, registry) = (process.pid.to_string(), format!("{:016x}", process.incarnation));
            let whose = [&*pid, &*process.program, &*registry];
            stale.with_label_values(&whose).set(process.is_stale.into());
            if let Some(value) = process.memory_budget {
                budget.with_label_values(&whose).set(number(value));
            }
            for model in &process.models {
                states.with_label_values(&[model.state.to_string()]).inc();
                if model.state == ModelState::Failed {
                    continue;
                }
                let which = [&*model.key, model.device.as_str(), whose[0], whose[1], whose[2]];
                bytes.with_label_values(&which).set(number(model.bytes));
                handles.with_label_values(&which).set(number(model.handles as u64));
                uses.with_label_values(&which).set(number(model.uses));
            }
        }
        Ok(())
    }

    fn topics(&self, topics: &[TopicInfo]) -> prometheus::Result<()> {
        let publishers = self.gauges("tensorbus_topic_publishers", "Publishers that have slots", &["topic"])?;
        let subscribers = self.gauges("tensorbus_topic_subscribers", "Subscribers", &["topic"])?;
        let bytes = self.gauges("tensorbus_topic_pool_bytes", "Bytes of all slots", &["topic"])?;
        // Gauges: what a publisher that has left had sent is not known any more.
        let sent = self.gauges("tensorbus_topic_messages", "Messages that its publishers have sent", &["topic"])?;
        let sent_bytes = self.gauges("tensorbus_topic_sent_bytes", "Bytes of their tensors", &["topic"])?;
        for topic in topics {
            let which = [&*topic.name];
            publishers.with_label_values(&which).set(number(topic.publishers() as u64));
            subscribers.with_label_values(&which).set(number(topic.subscribers as u64));
            bytes.with_label_values(&which).set(number(topic.pool_bytes()));
            sent.with_label_values(&which).set(total(topic, |pool| pool.messages));
            sent_bytes.with_label_values(&which).set(total(topic, |pool| pool.bytes));
        }
        Ok(())
    }
}

fn total(topic: &TopicInfo, count: impl Fn(&PoolInfo) -> u64) -> i64 {
    number(topic.pools.iter().map(count).fold(0, u64::saturating_add))
}

/// What others say of themselves may be any number.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_session_has_its_numbers() {
        let seen = Seen {
            session: "robot \"1\"",
            living: 2,
            dead: 0,
            deaths: u64::MAX,
            processes: &[],
            rejected: 0,
            topics: &[],
            quota: None,
        };
        let text = text(&seen).expect("text");
        let lines = text.lines().map(|line| Ok(line.to_owned()));
        let parsed = prometheus_parse::Scrape::parse(lines).expect("Prometheus text");
        let processes = parsed.samples.iter().find(|sample| sample.metric == "tensorbus_processes").expect("processes");
        assert_eq!(processes.value, prometheus_parse::Value::Gauge(2.0));
        assert!(processes.labels.get("session").is_some_and(|session| session.contains("robot")));
    }
}
