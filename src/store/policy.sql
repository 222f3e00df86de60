-- The policy: which rule decides which field. Every change is a new version.

CREATE FUNCTION contactsync._check_policy(policy jsonb) RETURNS void
	LANGUAGE C IMMUTABLE PARALLEL SAFE STRICT AS 'MODULE_PATHNAME', 'store_check_policy_sql';

CREATE FUNCTION contactsync._current_policy() RETURNS jsonb
	LANGUAGE sql STABLE PARALLEL RESTRICTED AS $$
	SELECT coalesce((SELECT p.policy FROM contactsync.policies p
		WHERE p.tenant_id = contactsync.current_tenant() ORDER BY p.version DESC LIMIT 1), '{}')
$$;
CREATE FUNCTION contactsync.current_policy() RETURNS jsonb
	LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.current_policy() IS
	'The rules in force that differ from the defaults: last_write_wins for single values and groups, union for lists and metadata.';

CREATE FUNCTION contactsync._change_policy(policy jsonb) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
BEGIN
	PERFORM contactsync._check_policy(policy);
	IF policy = contactsync._current_policy() THEN
		RETURN;
	END IF;
	INSERT INTO contactsync.policies (version, policy)
	SELECT coalesce(pg_catalog.max(p.version), 0) + 1, _change_policy.policy FROM contactsync.policies p
	WHERE p.tenant_id = contactsync.current_tenant();
END
$$;

-- A set of fields stands for its members; a member of a group for the group.
CREATE FUNCTION contactsync._policy_targets(field text) RETURNS text[]
	LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
	unit text;
BEGIN
	CASE
		WHEN field = 'business' THEN RETURN ARRAY['job'];
		WHEN field = 'personal' THEN RETURN ARRAY['phones', 'addresses', 'birthday', 'emails'];
		WHEN field IN ('company', 'department', 'title') THEN unit := 'job';
		WHEN field IN ('first_name', 'middle_name', 'last_name', 'prefix', 'suffix') THEN unit := 'name';
		ELSE RETURN ARRAY[field];
	END CASE;
	RAISE NOTICE 'field "%" is part of the group "%", which wins or loses whole: the rule is set for the group', field, unit;
	RETURN ARRAY[unit];
END
$$;

CREATE FUNCTION contactsync._set_policy(field text, rule text, sources text[], options jsonb) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	policy jsonb;
	value jsonb;
	t text;
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
	FOR t IN SELECT u FROM pg_catalog.unnest(sources) u
		WHERE NOT EXISTS (SELECT FROM contactsync.sources s
			WHERE s.tenant_id = contactsync.current_tenant() AND (s.name = u OR s.class = u))
	LOOP
		RAISE NOTICE 'no source and no class of sources is called "%" yet', t;
	END LOOP;
	value := options || pg_catalog.jsonb_build_object('rule', rule);
	IF sources IS NOT NULL THEN
		value := value || pg_catalog.jsonb_build_object('sources', sources);
	END IF;
	FOREACH t IN ARRAY contactsync._policy_targets(field) LOOP
		policy := policy || pg_catalog.jsonb_build_object(t, value);
	END LOOP;
	PERFORM contactsync._change_policy(policy);
END
$$;
CREATE FUNCTION contactsync.set_policy(field text, rule text, sources text[] DEFAULT NULL, options jsonb DEFAULT '{}') RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.set_policy(text, text, text[], jsonb) IS
	'Set the rule of a field, a group (name, job), a set (business, personal), metadata.<key> or <list>.primary: last_write_wins, source_priority, manual_review or union. Sources, or classes of them, rank in the order given; option {"only": true} excludes all others. process() then resolves the contacts anew. Errors: 22023.';

CREATE FUNCTION contactsync._unset_policy(field text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	targets CONSTANT text[] := contactsync._policy_targets(field);
	t text;
BEGIN
	-- a field that does not exist is refused here as it is in set_policy()
	FOREACH t IN ARRAY targets LOOP
		PERFORM contactsync._check_policy(pg_catalog.jsonb_build_object(t, '{"rule": "last_write_wins"}'::jsonb));
	END LOOP;
	PERFORM contactsync._lock_tenant();
	PERFORM contactsync._change_policy(contactsync._current_policy() - targets);
END
$$;
CREATE FUNCTION contactsync.unset_policy(field text) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.unset_policy(text) IS 'Go back to the default rule of a field. Errors: 22023.';

GRANT EXECUTE ON FUNCTION contactsync.set_policy(text, text, text[], jsonb), contactsync.unset_policy(text) TO contactsync_admin;
GRANT EXECUTE ON FUNCTION contactsync.current_policy() TO contactsync_app, contactsync_analyst, contactsync_admin;
