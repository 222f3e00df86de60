-- What is counted in shared memory: see stats.h.

CREATE FUNCTION contactsync._counters(OUT source text, OUT name text, OUT label text, OUT label_value text, OUT value bigint,
	OUT since timestamptz, OUT help text) RETURNS SETOF record
	LANGUAGE C VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'stats_counters_sql';
CREATE FUNCTION contactsync._histograms(OUT source text, OUT name text, OUT counts bigint[], OUT sum double precision,
	OUT since timestamptz, OUT help text) RETURNS SETOF record
	LANGUAGE C VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'stats_histograms_sql';
CREATE FUNCTION contactsync._histogram_bounds() RETURNS double precision[]
	LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'stats_bounds_sql';
CREATE FUNCTION contactsync._quantile(counts bigint[], fraction double precision) RETURNS interval
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'stats_quantile_sql';
CREATE FUNCTION contactsync._counter_name(source text) RETURNS text
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'stats_name_sql';
CREATE FUNCTION contactsync._counters_state() RETURNS text
	LANGUAGE C VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'stats_state_sql';

-- For code in SQL: an effect, of this transaction if it commits; an attempt, at once; that a source or a tenant is gone.
CREATE FUNCTION contactsync._count(source text, counter text, n bigint DEFAULT 1) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'stats_count_sql';
CREATE FUNCTION contactsync._count_now(source text, counter text) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'stats_count_now_sql';
CREATE FUNCTION contactsync._forget_counters(source text) RETURNS void
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'stats_forget_source_sql';
CREATE FUNCTION contactsync._forget_tenant_counters(tenant text) RETURNS void
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'stats_forget_tenant_sql';

CREATE FUNCTION contactsync._reset_counters(source text) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'stats_reset_sql';
CREATE FUNCTION contactsync.reset_counters(source text DEFAULT NULL) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.reset_counters(text) IS
	'Set the counters and histograms of a source of the active tenant to zero, or all of that tenant: at once, whatever becomes of the transaction. Errors: 55000 the library is not preloaded.';
GRANT EXECUTE ON FUNCTION contactsync.reset_counters(text) TO contactsync_admin;

CREATE VIEW contactsync.counters WITH (security_invoker = true) AS
SELECT c.source, c.name, CASE WHEN c.label IS NOT NULL THEN pg_catalog.jsonb_build_object(c.label, c.label_value) ELSE '{}' END AS labels,
	c.value, c.since, c.help
FROM contactsync._counters() c;
COMMENT ON VIEW contactsync.counters IS 'What was counted on this server, for the active tenant: in shared memory, kept through restarts. Empty where the library is not preloaded.';
COMMENT ON COLUMN contactsync.counters.source IS 'NULL = of the tenant, or of the worker; (others) = of all sources for which there was no room, to members of pg_monitor.';
COMMENT ON COLUMN contactsync.counters.since IS 'When counting began, or reset_counters() was called.';

CREATE VIEW contactsync.histograms WITH (security_invoker = true) AS
SELECT h.source, h.name, b.le, pg_catalog.sum(b.n) OVER (PARTITION BY h.source, h.name ORDER BY b.le)::bigint AS count, h.sum, h.since, h.help
FROM contactsync._histograms() h
	CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(h.counts), pg_catalog.unnest(contactsync._histogram_bounds())) AS b (n, le);
COMMENT ON VIEW contactsync.histograms IS 'How long things took on this server, for the active tenant, by source, in seconds: how many took no longer than each bound.';
COMMENT ON COLUMN contactsync.histograms.le IS 'Upper bound of the bucket; that of the last one is Infinity, and its count that of all.';
COMMENT ON COLUMN contactsync.histograms.sum IS 'Of all that were counted, in seconds.';
GRANT SELECT ON contactsync.counters, contactsync.histograms TO contactsync_owner, contactsync_app, contactsync_analyst, contactsync_admin;
GRANT EXECUTE ON FUNCTION contactsync._counters(), contactsync._histograms(), contactsync._histogram_bounds(), contactsync._quantile(bigint[], double precision),
	contactsync._counter_name(text), contactsync._counters_state() TO contactsync_app, contactsync_analyst, contactsync_admin;
