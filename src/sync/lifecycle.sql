-- The later life of a source: other settings, and its end.

-- Runs that are queued or under way end here and now: what the worker still hears for them it can store no more.
CREATE FUNCTION contactsync._end_runs(source text, reason text) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$
	UPDATE contactsync.runs x SET state = 'failed', finished_at = pg_catalog.clock_timestamp(), progress = NULL,
		error_code = '57014', error = reason
	WHERE x.tenant_id = contactsync.current_tenant() AND x.source = _end_runs.source AND x.state IN ('queued', 'running')
$$;

-- Bring every contact of a source up to date, some at a time; what its records are has not changed.
CREATE FUNCTION contactsync._resolve_source(source text, cause text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	contacts uuid[];
BEGIN
	FOR contacts IN
		SELECT pg_catalog.array_agg(n.contact_id) FROM (
			SELECT r.contact_id, pg_catalog.row_number() OVER () AS i FROM contactsync.records r
			WHERE r.tenant_id = contactsync.current_tenant() AND r.source = _resolve_source.source AND r.contact_id IS NOT NULL
			GROUP BY r.contact_id) n
		GROUP BY n.i / 1000
	LOOP
		PERFORM contactsync._resolve_contacts(contacts, cause, 0);
	END LOOP;
END
$$;

-- Settings that are checked take the place of those of a source, with all that depends on them.
CREATE FUNCTION contactsync._change_source(known contactsync.sources, changed jsonb) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	revived CONSTANT boolean := known.state = 'dropped';
	-- where we left off is a position in what was read by these
	elsewhere CONSTANT boolean := revived OR changed -> 'url' IS DISTINCT FROM known.settings -> 'url'
		OR changed -> 'parameters' IS DISTINCT FROM known.settings -> 'parameters';
	"interval" CONSTANT interval := contactsync._poll_interval(changed);
BEGIN
	PERFORM contactsync._lock_tenant();
	IF elsewhere THEN
		PERFORM contactsync._end_runs(known.name, 'the settings of the source have changed');
	END IF;
	UPDATE contactsync.sources s SET settings = changed, class = changed ->> 'class',
		"cursor" = CASE WHEN NOT elsewhere THEN s."cursor" END,
		fetched_at = CASE WHEN NOT elsewhere THEN s.fetched_at END,
		failures = CASE WHEN elsewhere THEN 0 ELSE s.failures END,
		last_error = CASE WHEN NOT elsewhere THEN s.last_error END,
		next_poll_at = CASE WHEN "interval" IS NULL OR s.state IN ('paused', 'stopped') THEN NULL
			WHEN elsewhere THEN pg_catalog.clock_timestamp()
			ELSE LEAST(s.next_poll_at, pg_catalog.clock_timestamp() + "interval") END
	WHERE s.tenant_id = contactsync.current_tenant() AND s.id = known.id;
	-- what links records is looked at anew in the background, as after set_identity_policy()
	IF changed -> 'identity' IS DISTINCT FROM known.settings -> 'identity'
		OR changed -> 'duplicates' IS DISTINCT FROM known.settings -> 'duplicates' THEN
		UPDATE contactsync.identity_policies p SET next_record = NULL
		WHERE p.tenant_id = contactsync.current_tenant() AND p.next_record IS NOT NULL;
		INSERT INTO contactsync.identity_policies (version, policy)
		SELECT coalesce(pg_catalog.max(p.version), 0) + 1, contactsync._current_identity_policy() FROM contactsync.identity_policies p
		WHERE p.tenant_id = contactsync.current_tenant();
	END IF;
	IF changed ->> 'class' IS DISTINCT FROM known.class THEN
		PERFORM contactsync._resolve_source(known.name, 'statement');
	END IF;
END
$$;

-- A source by its name, for whoever changes it; under the tenant's lock.
CREATE FUNCTION contactsync._source_to_change(name text) RETURNS contactsync.sources
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	known contactsync.sources;
BEGIN
	PERFORM contactsync._require_active();
	PERFORM contactsync._lock_tenant();
	SELECT s.* INTO known FROM contactsync.sources s
	WHERE s.tenant_id = contactsync.current_tenant() AND s.name = _source_to_change.name FOR UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'source "%" does not exist', name USING ERRCODE = 'undefined_object',
			HINT = 'See contactsync.status.';
	END IF;
	RETURN known;
END
$$;

CREATE FUNCTION contactsync._alter_source(name text, settings jsonb, secret jsonb) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	known contactsync.sources := contactsync._source_to_change(name);
	changed jsonb;
BEGIN
	IF known.state = 'dropped' THEN
		RAISE EXCEPTION 'source "%" does not exist', name USING ERRCODE = 'undefined_object',
			HINT = 'It was dropped: add_source() of the same name and connector takes it up again.';
	ELSIF settings IS NOT NULL AND pg_catalog.jsonb_typeof(settings) <> 'object' THEN
		RAISE EXCEPTION 'settings must be a JSON object' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	SELECT coalesce(pg_catalog.jsonb_object_agg(m.key, m.value), '{}') INTO changed
	FROM pg_catalog.jsonb_each(known.settings || coalesce(settings, '{}')) m WHERE m.value <> 'null';
	changed := contactsync._checked_settings(known.connector, changed, secret);
	IF changed <> known.settings THEN
		IF settings ? 'write' AND changed ? 'write' THEN
			RAISE NOTICE 'nothing is written back to source "%" yet: this version only reads', name;
		END IF;
		PERFORM contactsync._change_source(known, changed);
	END IF;
	IF secret IS NOT NULL THEN
		PERFORM contactsync._set_secrets(name, secret);
		-- what stopped it were the credentials
		IF known.state = 'stopped' THEN
			PERFORM contactsync._set_source_state(name, 'active');
		END IF;
	END IF;
END
$$;
CREATE FUNCTION contactsync.alter_source(name text, settings jsonb, secret jsonb DEFAULT NULL) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.alter_source(text, jsonb, jsonb) IS
	'Change settings of a source: those that are given take the place of what they were, null sets one back, all others stay. Another url or other parameters end a run in progress, and the next one reads everything. secret: takes the place of all the secrets (NULL = they stay), and lets a source that refused credentials had stopped go on. The same call again does nothing. Errors: as add_source(); 42704 no such source.';

CREATE FUNCTION contactsync._withdraw_claims(source text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
BEGIN
	-- what it has said, it has said
	PERFORM contactsync.process();
	INSERT INTO contactsync.inbox (source, source_id, kind, version, inferred)
	SELECT r.source, r.source_id, 'delete',
		-- later than anything that is known of the record
		GREATEST(pg_catalog.clock_timestamp(), r.last_effective + interval '1 microsecond', r.seen_at + interval '1 microsecond'), true
	FROM contactsync.records r
	WHERE r.tenant_id = contactsync.current_tenant() AND r.source = _withdraw_claims.source AND r.alive ORDER BY r.id;
	IF FOUND THEN
		PERFORM contactsync.process();
	END IF;
END
$$;

-- Nothing of what a source said is left. Others that were linked by it alone part; the ids of contacts that
-- have records left lead to those.
CREATE FUNCTION contactsync._purge_claims(source text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	purged bigint[];
	contacts uuid[];
	touched bigint[];
	batch bigint[];
BEGIN
	SELECT pg_catalog.array_agg(r.id ORDER BY r.id), pg_catalog.array_agg(DISTINCT r.contact_id) FILTER (WHERE r.contact_id IS NOT NULL)
	INTO purged, contacts FROM contactsync.records r
	WHERE r.tenant_id = contactsync.current_tenant() AND r.source = _purge_claims.source;
	-- whoever was one contact with them, or shares a key with them, which may link now
	SELECT pg_catalog.array_agg(t.id ORDER BY t.id) INTO touched FROM (
		SELECT r.id FROM contactsync.records r
		WHERE r.tenant_id = contactsync.current_tenant() AND r.contact_id = ANY (contacts) AND r.source <> _purge_claims.source
		UNION
		SELECT o.record_id FROM contactsync.identities i JOIN contactsync.identities o ON o.tenant_id = i.tenant_id AND o.key = i.key
		JOIN contactsync.records r ON r.tenant_id = o.tenant_id AND r.id = o.record_id AND r.source <> _purge_claims.source
		WHERE i.tenant_id = contactsync.current_tenant() AND i.record_id = ANY (purged)) t;
	-- what a contact loses by it is a deletion, also where nothing is left of it
	UPDATE contactsync.records r SET alive = false, zombie = false
	WHERE r.tenant_id = contactsync.current_tenant() AND r.source = _purge_claims.source AND (r.alive OR r.zombie);
	PERFORM contactsync._resolve_source(source, 'statement');
	-- an id goes on with the first-known of those that were one contact with its record
	UPDATE contactsync.contact_aliases a SET record_id = h.id, reused_at = h.reused_at
	FROM contactsync.records p CROSS JOIN LATERAL (
		SELECT r.id, r.reused_at FROM contactsync.records r
		WHERE r.tenant_id = contactsync.current_tenant() AND r.contact_id = p.contact_id AND r.source <> _purge_claims.source
		ORDER BY r.id LIMIT 1) h
	WHERE a.tenant_id = contactsync.current_tenant() AND a.record_id = p.id AND a.reused_at IS NOT DISTINCT FROM p.reused_at
		AND p.tenant_id = contactsync.current_tenant() AND p.source = _purge_claims.source;
	UPDATE contactsync.contact_aliases a SET minted_for = a.record_id
	WHERE a.tenant_id = contactsync.current_tenant() AND a.minted_for = ANY (purged) AND a.record_id <> ALL (purged);
	DELETE FROM contactsync.inbox i WHERE i.tenant_id = contactsync.current_tenant() AND i.source = _purge_claims.source;
	DELETE FROM contactsync.inbox_dedup d WHERE d.tenant_id = contactsync.current_tenant() AND d.source = _purge_claims.source;
	DELETE FROM contactsync.source_items i WHERE i.tenant_id = contactsync.current_tenant() AND i.source = _purge_claims.source;
	DELETE FROM contactsync.identities i WHERE i.tenant_id = contactsync.current_tenant() AND i.record_id = ANY (purged);
	DELETE FROM contactsync.refused_links l WHERE l.tenant_id = contactsync.current_tenant()
		AND (l.record_id = ANY (purged) OR l.other_id = ANY (purged));
	DELETE FROM contactsync.decision_records d WHERE d.tenant_id = contactsync.current_tenant() AND d.record_id = ANY (purged);
	DELETE FROM contactsync.observations o WHERE o.tenant_id = contactsync.current_tenant() AND o.record_id = ANY (purged);
	DELETE FROM contactsync.records r WHERE r.tenant_id = contactsync.current_tenant() AND r.source = _purge_claims.source;
	DELETE FROM contactsync.source_counts c WHERE c.tenant_id = contactsync.current_tenant() AND c.source = _purge_claims.source;
	DELETE FROM contactsync.generic_keys g WHERE g.tenant_id = contactsync.current_tenant()
		AND NOT EXISTS (SELECT FROM contactsync.identities i WHERE i.tenant_id = g.tenant_id AND i.key = g.key);
	FOR batch IN
		SELECT pg_catalog.array_agg(u.id ORDER BY u.id) FROM pg_catalog.unnest(touched) WITH ORDINALITY AS u (id, i) GROUP BY u.i / 1000
	LOOP
		PERFORM contactsync._relink(batch, 'statement', 0);
	END LOOP;
	FOR contacts IN
		SELECT pg_catalog.array_agg(u.id) FROM pg_catalog.unnest(contacts) WITH ORDINALITY AS u (id, i) GROUP BY u.i / 1000
	LOOP
		PERFORM contactsync._resolve_contacts(contacts, 'statement', 0);
	END LOOP;
	DELETE FROM contactsync.conflicts k WHERE k.tenant_id = contactsync.current_tenant()
		AND NOT EXISTS (SELECT FROM contactsync.contacts c WHERE c.tenant_id = k.tenant_id AND c.id = k.contact_id);
END
$$;

CREATE FUNCTION contactsync._drop_source(name text, claims text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	known contactsync.sources;
BEGIN
	IF claims IS NULL OR claims NOT IN ('keep', 'withdraw', 'purge') THEN
		RAISE EXCEPTION 'unknown fate of claims "%"', coalesce(claims, 'NULL') USING ERRCODE = 'invalid_parameter_value',
			HINT = 'It is keep (records stay as they are), withdraw (they count as deleted) or purge (nothing of them is left).';
	END IF;
	known := contactsync._source_to_change(name);
	PERFORM contactsync._end_runs(name, 'the source was dropped');
	IF claims = 'withdraw' THEN
		PERFORM contactsync._withdraw_claims(name);
	ELSIF claims = 'purge' THEN
		PERFORM contactsync._purge_claims(name);
	END IF;
	-- what runs hold back is settled by this; where they stopped means nothing to a source of that name that comes later
	UPDATE contactsync.runs x SET held_deletes = 0, certificate_applied = x.certificate_applied OR x.certified AND claims = 'purge', cursor_before = NULL, cursor_after = NULL
	WHERE x.tenant_id = contactsync.current_tenant() AND x.source = _drop_source.name
		AND (x.held_deletes > 0 OR x.certified AND NOT x.certificate_applied AND claims = 'purge' OR x.cursor_before IS NOT NULL OR x.cursor_after IS NOT NULL);
	PERFORM contactsync._forget_counters(name);
	DELETE FROM contactsync.schedules s WHERE s.tenant_id = contactsync.current_tenant() AND s.source = _drop_source.name;
	-- whatever the worker still hears for them it can store no more
	DELETE FROM contactsync.fetches f WHERE f.tenant_id = contactsync.current_tenant() AND f.source = _drop_source.name;
	DELETE FROM contactsync.dead_fetches f WHERE f.tenant_id = contactsync.current_tenant() AND f.source = _drop_source.name;
	DELETE FROM contactsync.drift d WHERE d.tenant_id = contactsync.current_tenant() AND d.source = _drop_source.name AND claims = 'purge';
	DELETE FROM contactsync.source_secrets s WHERE s.tenant_id = contactsync.current_tenant() AND s.source = _drop_source.name;
	DELETE FROM contactsync.source_items i WHERE i.tenant_id = contactsync.current_tenant() AND i.source = _drop_source.name AND claims <> 'keep';
	IF claims = 'purge' THEN
		DELETE FROM contactsync.sources s WHERE s.tenant_id = contactsync.current_tenant() AND s.id = known.id;
	ELSE
		UPDATE contactsync.sources s SET state = 'dropped', next_poll_at = NULL, "cursor" = NULL, failures = 0, last_error = NULL
		WHERE s.tenant_id = contactsync.current_tenant() AND s.id = known.id;
	END IF;
END
$$;
CREATE FUNCTION contactsync.drop_source(name text, claims text DEFAULT 'keep') RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.drop_source(text, text) IS
	'Read a source no more, take nothing from it and forget its secrets; a run in progress ends at once. What it has said: keep = stays as it is; withdraw = all of its records count as deleted, as of now, until a source of that name shows them again; purge = its records, observations and events are deleted for good, as if it had never been, and contacts of which nothing is left with them. After keep or withdraw, add_source() of the same name and connector takes it up again; dropping it once more changes only what happens to its records. Errors: 22023, 42704 no such source, 40001, 55000 dormant copy.';
GRANT EXECUTE ON FUNCTION contactsync.alter_source(text, jsonb, jsonb), contactsync.drop_source(text, text) TO contactsync_admin;
