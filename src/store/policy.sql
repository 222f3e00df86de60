-- The policy: which rule decides which field. Every change is a new version.

CREATE FUNCTION contactsync._current_policy() RETURNS contactsync.merge_policy
	LANGUAGE sql STABLE PARALLEL RESTRICTED AS $$
	SELECT coalesce((SELECT p.policy FROM contactsync.policies p
		WHERE p.tenant_id = contactsync.current_tenant() ORDER BY p.version DESC LIMIT 1), '{}')
$$;
CREATE FUNCTION contactsync.current_policy() RETURNS contactsync.merge_policy
	LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.current_policy() IS
	'The rules that were set; the default is last_write_wins for single values and groups, union for lists and metadata.';

-- Has this transaction resolved contacts by this version?
CREATE FUNCTION contactsync._policy_used(version bigint) RETURNS boolean
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'store_policy_used_sql';

-- One version a transaction, unless contacts were already resolved by it.
CREATE FUNCTION contactsync._change_policy(changed contactsync.merge_policy) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	latest contactsync.policies;
BEGIN
	IF changed OPERATOR(contactsync.=) contactsync._current_policy() THEN
		RETURN;
	END IF;
	SELECT p.* INTO latest FROM contactsync.policies p
	WHERE p.tenant_id = contactsync.current_tenant() ORDER BY p.version DESC LIMIT 1;
	-- a transaction id alone may be another cluster's, from before a restore
	IF latest.xact = pg_catalog.pg_current_xact_id() AND latest.started_at = pg_catalog.transaction_timestamp()
		AND NOT contactsync._policy_used(latest.version) THEN
		UPDATE contactsync.policies p SET policy = changed, decided_at = pg_catalog.clock_timestamp()
		WHERE p.tenant_id = contactsync.current_tenant() AND p.version = latest.version;
	ELSE
		INSERT INTO contactsync.policies (version, policy) VALUES (coalesce(latest.version, 0) + 1, changed);
	END IF;
END
$$;

-- What a field is set by: a set of fields stands for its members, a member of a group for the group.
CREATE FUNCTION contactsync._policy_targets(policy contactsync.merge_policy, field text) RETURNS text[]
	LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
	unit text;
BEGIN
	IF field IN ('business', 'personal') THEN
		RETURN (SELECT pg_catalog.array_agg(DISTINCT contactsync.merge_policy_unit(policy, f)) FROM pg_catalog.unnest(
			CASE field WHEN 'business' THEN ARRAY['company', 'department', 'title']
				ELSE ARRAY['phones', 'addresses', 'birthday', 'emails'] END) AS f);
	END IF;
	unit := contactsync.merge_policy_unit(policy, field);
	IF unit <> field THEN
		RAISE NOTICE 'field "%" is part of the group "%", which wins or loses whole: the rule is set for the group', field, unit;
	END IF;
	RETURN ARRAY[unit];
END
$$;

CREATE FUNCTION contactsync._set_policy(field text, rule text, sources text[], options jsonb) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	policy jsonb;
	value jsonb;
	t text;
	m text;
BEGIN
	PERFORM contactsync._require_active();
	-- before it is read: two changes at a time must both be there
	PERFORM contactsync._lock_tenant();
	policy := contactsync._current_policy();
	IF field IS NULL OR rule IS NULL THEN
		RAISE EXCEPTION 'field and rule must not be null' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	IF options IS NULL OR pg_catalog.jsonb_typeof(options) <> 'object' THEN
		RAISE EXCEPTION 'options must be a JSON object' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	FOR t IN SELECT u FROM (
			SELECT pg_catalog.unnest(sources)
			UNION SELECT pg_catalog.jsonb_object_keys(CASE pg_catalog.jsonb_typeof(options -> 'clear') WHEN 'object'
				THEN options -> 'clear' ELSE '{}' END)) s (u)
		WHERE NOT EXISTS (SELECT FROM contactsync.sources s
			WHERE s.tenant_id = contactsync.current_tenant() AND (s.name = u OR s.class = u))
	LOOP
		RAISE NOTICE 'no source and no class of sources is called "%" yet', t;
	END LOOP;
	value := options || pg_catalog.jsonb_build_object('rule', rule);
	IF sources IS NOT NULL THEN
		value := value || pg_catalog.jsonb_build_object('sources', sources);
	END IF;
	FOREACH t IN ARRAY CASE WHEN value ? 'members' THEN ARRAY[field]
			ELSE contactsync._policy_targets(policy::contactsync.merge_policy, field) END LOOP
		-- what belongs to a group stays until it is said anew, and has no rule of its own then
		IF value ? 'members' THEN
			FOR m IN SELECT k FROM pg_catalog.jsonb_array_elements_text(
					CASE pg_catalog.jsonb_typeof(value -> 'members') WHEN 'array' THEN value -> 'members' ELSE '[]' END) k
				WHERE policy ? k
			LOOP
				RAISE NOTICE 'field "%" is part of the group "%" from now on: its own rule is dropped', m, t;
				policy := policy - m;
			END LOOP;
			policy := policy || pg_catalog.jsonb_build_object(t, value);
		ELSE
			policy := policy || pg_catalog.jsonb_build_object(t,
				pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object('members', policy -> t -> 'members')) || value);
		END IF;
	END LOOP;
	PERFORM contactsync._change_policy(policy::contactsync.merge_policy);
END
$$;
CREATE FUNCTION contactsync.set_policy(field text, rule text, sources text[] DEFAULT NULL, options jsonb DEFAULT '{}') RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.set_policy(text, text, text[], jsonb) IS
	'Set the rule of a field, a group (name, job), a set (business, personal), metadata.<key> or <list>.primary: last_write_wins, source_priority, manual_review, most_frequent, verified_first, oldest, most_complete or union. Sources, or classes of them, rank in the order given; option {"only": true} excludes all others, {"members": [...]} declares a group of single-valued fields, the leading one first, {"clear": withdraw, authoritative, ignore or review, or an object of these by source} says what it means that a source empties the field. process() then resolves the contacts anew. Errors: 22023.';

CREATE FUNCTION contactsync._unset_policy(field text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	policy contactsync.merge_policy;
	targets text[];
BEGIN
	PERFORM contactsync._require_active();
	PERFORM contactsync._lock_tenant();
	policy := contactsync._current_policy();
	targets := contactsync._policy_targets(policy, field);
	-- a field that does not exist is refused here as it is in set_policy()
	PERFORM pg_catalog.jsonb_build_object(t, 'last_write_wins')::contactsync.merge_policy
	FROM pg_catalog.unnest(targets) t WHERE NOT policy::jsonb ? t;
	PERFORM contactsync._change_policy((policy::jsonb - targets)::contactsync.merge_policy);
END
$$;
CREATE FUNCTION contactsync.unset_policy(field text) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.unset_policy(text) IS 'Go back to the default rule of a field. Errors: 22023.';

GRANT EXECUTE ON FUNCTION contactsync.set_policy(text, text, text[], jsonb), contactsync.unset_policy(text) TO contactsync_admin;
GRANT EXECUTE ON FUNCTION contactsync.current_policy() TO contactsync_app, contactsync_analyst, contactsync_admin;
