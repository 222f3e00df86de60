-- How sources, runs, queues and conflicts fare, without a look at large tables: numbers come from counters, from
-- source_counts, or from partial indexes of what waits, of which no more than the first 10,000 rows are counted. Each LIMIT has
-- an ORDER BY that the index serves: without, a plan may look through the table for rows that are not there.

CREATE INDEX runs_held_idx ON contactsync.runs (tenant_id, source) WHERE held_deletes > 0;
CREATE INDEX runs_succeeded_idx ON contactsync.runs (tenant_id, source, id DESC) WHERE state = 'succeeded';
CREATE INDEX inbox_rejected_idx ON contactsync.inbox (tenant_id, source, id) WHERE failed_at IS NOT NULL;
GRANT SELECT (tenant_id, id, source, failed_at, received_at) ON contactsync.inbox TO contactsync_app, contactsync_analyst;

CREATE VIEW contactsync.status WITH (security_invoker = true) AS
WITH due AS MATERIALIZED (
	SELECT w.source, pg_catalog.count(*) AS n FROM (SELECT i.source FROM contactsync.inbox i
		WHERE i.tenant_id = contactsync.current_tenant() AND i.failed_at IS NULL ORDER BY i.id LIMIT 10000) w GROUP BY w.source),
disputed AS MATERIALIZED (
	SELECT c.source, pg_catalog.count(*) AS n FROM (SELECT k.id, k.candidates FROM contactsync.conflicts k
		WHERE k.tenant_id = contactsync.current_tenant() AND k.state IN ('open', 'assigned') ORDER BY k.id LIMIT 10000) k
	CROSS JOIN LATERAL (SELECT DISTINCT x ->> 'source' AS source FROM pg_catalog.jsonb_array_elements(k.candidates) x) c GROUP BY c.source)
SELECT s.name AS source, s.connector, s.class, s.state,
	coalesce((SELECT c.live FROM contactsync.source_counts c WHERE c.tenant_id = s.tenant_id AND c.source = s.name), 0) AS records,
	coalesce((SELECT d.n FROM due d WHERE d.source = s.name), 0) AS waiting,
	(SELECT pg_catalog.count(*) FROM (SELECT FROM contactsync.inbox i
	 WHERE i.tenant_id = s.tenant_id AND i.source = s.name AND i.failed_at IS NOT NULL ORDER BY i.id LIMIT 10000) i) AS rejected,
	(SELECT pg_catalog.sum(x.held_deletes)::bigint FROM contactsync.runs x
	 WHERE x.tenant_id = s.tenant_id AND x.source = s.name AND x.held_deletes > 0) AS held_deletes,
	l.id AS last_run, l.state AS last_run_state, l.finished_at AS last_run_at, s.failures, s.last_error, s.next_poll_at,
	g.finished_at AS last_success_at, pg_catalog.clock_timestamp() - g.stamp AS age,
	CASE WHEN s.failures > 0 THEN (SELECT x.error_code FROM contactsync.runs x
		WHERE x.tenant_id = s.tenant_id AND x.source = s.name AND x.state IN ('succeeded', 'failed') ORDER BY x.id DESC LIMIT 1) END AS last_error_code,
	coalesce((SELECT d.n FROM disputed d WHERE d.source = s.name), 0) AS open_conflicts,
	CASE WHEN s.breaker_until IS NULL THEN 'closed' WHEN s.breaker_until > pg_catalog.clock_timestamp() THEN 'open' ELSE 'half-open' END AS breaker
FROM contactsync.sources s
LEFT JOIN LATERAL (SELECT x.* FROM contactsync.runs x WHERE x.tenant_id = s.tenant_id AND x.source = s.name
	ORDER BY x.id DESC LIMIT 1) l ON true
LEFT JOIN LATERAL (SELECT x.stamp, x.finished_at FROM contactsync.runs x WHERE x.tenant_id = s.tenant_id AND x.source = s.name AND x.state = 'succeeded'
	ORDER BY x.id DESC LIMIT 1) g ON true
WHERE s.tenant_id = contactsync.current_tenant() AND s.state <> 'dropped';
COMMENT ON VIEW contactsync.status IS 'Each source of the active tenant: its records, what waits or was rejected, its last run and when the next is due.';
COMMENT ON COLUMN contactsync.status.records IS 'Live ones.';
COMMENT ON COLUMN contactsync.status.waiting IS 'Of the oldest 10,000 events that wait in all, those of this source.';
COMMENT ON COLUMN contactsync.status.rejected IS 'Events that could not be applied; 10,000 = or more.';
COMMENT ON COLUMN contactsync.status.age IS 'Since the start of the last run that succeeded: what changed before it is here.';
COMMENT ON COLUMN contactsync.status.last_error_code IS 'SQLSTATE of the last run, if it failed.';
COMMENT ON COLUMN contactsync.status.breaker IS 'closed; open: after many requests that failed no more are sent; half-open: one may go, to see how things are.';
COMMENT ON COLUMN contactsync.status.open_conflicts IS 'Of the oldest 10,000 open conflicts, those in which this source has a candidate.';

CREATE VIEW contactsync.run_history WITH (security_invoker = true) AS
SELECT r.id AS run, r.source, r.kind, r.cause, r.state, r.requested_at, r.requested_by, r.started_at, r.finished_at,
	coalesce(r.finished_at, CASE r.state WHEN 'running' THEN pg_catalog.clock_timestamp() END) - r.started_at AS duration,
	r.pages, r.items, r.deletes, r.held_deletes, r.certified, r.attempt AS attempts, r.error_code, r.error,
	(SELECT pg_catalog.count(DISTINCT d.source_id) FROM contactsync.drift d WHERE d.tenant_id = r.tenant_id AND d.run = r.id) AS drifted_records
FROM contactsync.runs r
WHERE r.tenant_id = contactsync.current_tenant();
COMMENT ON VIEW contactsync.run_history IS 'Every run of the active tenant that prune() has left; ORDER BY run DESC for the newest first.';

CREATE VIEW contactsync.sync_lag WITH (security_invoker = true) AS
SELECT s.name AS source, s.state, l.stamp AS as_of, pg_catalog.clock_timestamp() - l.stamp AS lag,
	CASE WHEN s.settings -> 'url' IS NULL OR s.settings -> 'poll' = 'false' THEN NULL
		ELSE coalesce(s.settings ->> 'poll', '5 min')::interval END AS "interval", s.next_poll_at,
	coalesce(s.state IN ('active', 'failing') AND s.next_poll_at < pg_catalog.clock_timestamp() - interval '1 min', false) AS overdue,
	contactsync._quantile(h.counts, 0.5) AS p50, contactsync._quantile(h.counts, 0.95) AS p95, contactsync._quantile(h.counts, 0.99) AS p99,
	(SELECT pg_catalog.sum(n)::bigint FROM pg_catalog.unnest(h.counts) n) AS events, h.since
FROM contactsync.sources s
LEFT JOIN LATERAL (SELECT r.stamp FROM contactsync.runs r
	WHERE r.tenant_id = s.tenant_id AND r.source = s.name AND r.state = 'succeeded' ORDER BY r.id DESC LIMIT 1) l ON true
LEFT JOIN contactsync._histograms() h ON h.name = 'event_lag_seconds' AND h.source = contactsync._counter_name(s.name)
WHERE s.tenant_id = contactsync.current_tenant() AND s.state <> 'dropped';
COMMENT ON VIEW contactsync.sync_lag IS 'Of each source of the active tenant: how old what was last read of it is, and how long its changes took to get into directory.';
COMMENT ON COLUMN contactsync.sync_lag.as_of IS 'The start of the newest run that succeeded: what changed before it is here; NULL = it was never read.';
COMMENT ON COLUMN contactsync.sync_lag.overdue IS 'A poll is due for more than a minute, and nobody makes it.';
COMMENT ON COLUMN contactsync.sync_lag.p50 IS 'Median of the time from a change at the source (its version, or its receipt where that is earlier) until it was applied here, from histograms: see operations.md for how exact. NULL = nothing was counted.';
COMMENT ON COLUMN contactsync.sync_lag.events IS 'Changes counted for that since the time in since.';

CREATE VIEW contactsync.queue_depth WITH (security_invoker = true) AS
SELECT q.queue, q.waiting, q.oldest, pg_catalog.clock_timestamp() - q.oldest AS age FROM (
	SELECT 'inbox' AS queue,
		(SELECT pg_catalog.count(*) FROM (SELECT FROM contactsync.inbox i
		 WHERE i.tenant_id = contactsync.current_tenant() AND i.failed_at IS NULL ORDER BY i.id LIMIT 10000) i) AS waiting,
		(SELECT i.received_at FROM contactsync.inbox i
		 WHERE i.tenant_id = contactsync.current_tenant() AND i.failed_at IS NULL ORDER BY i.id LIMIT 1) AS oldest
	UNION ALL
	SELECT 'rejected', pg_catalog.count(*), pg_catalog.min(i.received_at) FROM (SELECT i.received_at FROM contactsync.inbox i
		WHERE i.tenant_id = contactsync.current_tenant() AND i.failed_at IS NOT NULL ORDER BY i.source, i.id LIMIT 10000) i
	UNION ALL
	SELECT 'runs', pg_catalog.count(*), pg_catalog.min(r.requested_at) FROM contactsync.runs r
	WHERE r.tenant_id = contactsync.current_tenant() AND r.state = 'queued'
	UNION ALL
	SELECT 'fetches', pg_catalog.count(*), pg_catalog.min(f.queued_at) FROM (SELECT f.queued_at FROM contactsync.fetches f
		WHERE f.tenant_id = contactsync.current_tenant() ORDER BY f.source, f.source_id LIMIT 10000) f
	UNION ALL
	SELECT 'dead fetches', pg_catalog.count(*), pg_catalog.min(d.first_failed_at) FROM (SELECT d.first_failed_at FROM contactsync.dead_fetches d
		WHERE d.tenant_id = contactsync.current_tenant() ORDER BY d.source, d.source_id LIMIT 10000) d) q;
COMMENT ON VIEW contactsync.queue_depth IS 'What waits, of the active tenant: events in the inbox, events that were rejected, runs, records to be fetched, and fetches that were given up.';
COMMENT ON COLUMN contactsync.queue_depth.waiting IS '10000 = or more.';

CREATE VIEW contactsync.conflict_rate WITH (security_invoker = true) AS
SELECT pg_catalog.max(c.value) FILTER (WHERE c.name = 'contacts_resolved_total') AS contacts_resolved,
	pg_catalog.sum(c.value) FILTER (WHERE c.name = 'disagreements_total')::bigint AS disagreements,
	pg_catalog.jsonb_object_agg(coalesce(c.labels ->> 'rule', ''), c.value) FILTER (WHERE c.name = 'disagreements_total' AND c.value > 0) AS by_rule,
	pg_catalog.max(c.value) FILTER (WHERE c.labels @> '{"change": "opened"}') AS opened,
	pg_catalog.max(c.value) FILTER (WHERE c.labels @> '{"change": "resolved"}') AS resolved,
	pg_catalog.max(c.value) FILTER (WHERE c.labels @> '{"change": "superseded"}') AS superseded,
	pg_catalog.round(pg_catalog.max(c.value) FILTER (WHERE c.labels @> '{"change": "opened"}')
		/ NULLIF(pg_catalog.max(c.value) FILTER (WHERE c.name = 'contacts_resolved_total'), 0)::numeric, 4) AS rate,
	(SELECT pg_catalog.count(*) FROM (SELECT FROM contactsync.conflicts k
	 WHERE k.tenant_id = contactsync.current_tenant() AND k.state IN ('open', 'assigned') ORDER BY k.id LIMIT 10000) k) AS open,
	pg_catalog.min(c.since) AS since
FROM contactsync.counters c WHERE c.name IN ('contacts_resolved_total', 'disagreements_total', 'conflicts_total');
COMMENT ON VIEW contactsync.conflict_rate IS 'How often sources of the active tenant disagree, what decided, and how often a person has to: one row. NULL = nothing was counted.';
COMMENT ON COLUMN contactsync.conflict_rate.disagreements IS 'Fields and groups about which sources said different things, each time that a contact was resolved for events; by_rule: by the rule that decided.';
COMMENT ON COLUMN contactsync.conflict_rate.rate IS 'Conflicts opened for each contact that was resolved.';
COMMENT ON COLUMN contactsync.conflict_rate.open IS 'Conflicts that wait for a person now; 10000 = or more.';

CREATE VIEW contactsync.webhook_failures WITH (security_invoker = true) AS
SELECT coalesce(c.source, r.source) AS source, coalesce(c.reason, r.reason) AS reason, c.value AS requests, c.since, r.last_hour, r.last_day
FROM (SELECT x.source, x.labels ->> 'reason' AS reason, x.value, x.since FROM contactsync.counters x
	WHERE x.name = 'webhooks_refused_total' AND x.value > 0) c
FULL JOIN (SELECT contactsync._counter_name(x.source) AS source, x.reason,
		pg_catalog.sum(x.count) FILTER (WHERE x.hour > pg_catalog.now() - interval '1 hour')::bigint AS last_hour, pg_catalog.sum(x.count)::bigint AS last_day
	FROM contactsync.webhook_refusals x
	WHERE x.tenant_id = contactsync.current_tenant() AND x.hour > pg_catalog.now() - interval '1 day' GROUP BY 1, 2) r
	ON r.source = c.source AND r.reason = c.reason;
COMMENT ON VIEW contactsync.webhook_failures IS 'Webhook requests of the active tenant that were refused, by source and reason; source NULL = before it was known whether there is such a source.';
COMMENT ON COLUMN contactsync.webhook_failures.requests IS 'Counted since the time in since; NULL = none, or the library is not preloaded.';
COMMENT ON COLUMN contactsync.webhook_failures.last_hour IS 'Of unauthenticated requests, those of the current hour; last_day: of the last 24 hours.';

GRANT SELECT ON contactsync.status, contactsync.run_history, contactsync.sync_lag, contactsync.queue_depth, contactsync.conflict_rate
	TO contactsync_owner, contactsync_app, contactsync_analyst, contactsync_admin;
GRANT SELECT ON contactsync.webhook_failures TO contactsync_owner, contactsync_analyst, contactsync_admin;
