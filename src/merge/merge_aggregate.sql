-- Contacts as values, made into one: resolve() and the aggregate merge().

CREATE TYPE contactsync.merge_state;

CREATE FUNCTION contactsync.merge_state_in(cstring) RETURNS contactsync.merge_state
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
CREATE FUNCTION contactsync.merge_state_out(contactsync.merge_state) RETURNS cstring
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
CREATE FUNCTION contactsync.merge_state_recv(internal) RETURNS contactsync.merge_state
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
CREATE FUNCTION contactsync.merge_state_send(contactsync.merge_state) RETURNS bytea
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';

CREATE TYPE contactsync.merge_state (
	INPUT = contactsync.merge_state_in,
	OUTPUT = contactsync.merge_state_out,
	RECEIVE = contactsync.merge_state_recv,
	SEND = contactsync.merge_state_send,
	INTERNALLENGTH = VARIABLE,
	ALIGNMENT = int4,
	STORAGE = extended
);
COMMENT ON TYPE contactsync.merge_state IS 'What merge() has taken in so far: the policy, and a contact on each line after it.';

CREATE FUNCTION contactsync.merge_transition(contactsync.merge_state, contactsync.contact, contactsync.merge_policy) RETURNS contactsync.merge_state
	LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.merge_transition(contactsync.merge_state, contactsync.contact, contactsync.merge_policy) IS 'Transition function of merge().';
CREATE FUNCTION contactsync.merge_combine(contactsync.merge_state, contactsync.merge_state) RETURNS contactsync.merge_state
	LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.merge_combine(contactsync.merge_state, contactsync.merge_state) IS 'Combine function of merge().';
CREATE FUNCTION contactsync.merge_final(contactsync.merge_state) RETURNS contactsync.contact
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.merge_final(contactsync.merge_state) IS 'Final function of merge().';

CREATE AGGREGATE contactsync.merge(contact contactsync.contact, policy contactsync.merge_policy) (
	SFUNC = contactsync.merge_transition,
	STYPE = contactsync.merge_state,
	COMBINEFUNC = contactsync.merge_combine,
	FINALFUNC = contactsync.merge_final,
	PARALLEL = SAFE
);
COMMENT ON AGGREGATE contactsync.merge(contactsync.contact, contactsync.merge_policy) IS
	'The contacts of a group as one, as the policy resolves them, in whatever order they come; NULLs are skipped. Their provenance says what claims what; a value without is of unknown time. Errors: 22023 if the policy varies within a group, 22004 without one.';

CREATE FUNCTION contactsync.resolve(contacts contactsync.contact[], policy contactsync.merge_policy) RETURNS contactsync.contact
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'merge_resolve_array';
COMMENT ON FUNCTION contactsync.resolve(contactsync.contact[], contactsync.merge_policy) IS
	'Contacts as one, as merge() makes it: NULL if there is none.';
