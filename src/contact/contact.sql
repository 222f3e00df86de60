-- The type contact: one person's data as one value.

CREATE TYPE contactsync.contact;

CREATE FUNCTION contactsync.contact_in(cstring) RETURNS contactsync.contact
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
CREATE FUNCTION contactsync.contact_out(contactsync.contact) RETURNS cstring
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
CREATE FUNCTION contactsync.contact_recv(internal) RETURNS contactsync.contact
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
CREATE FUNCTION contactsync.contact_send(contactsync.contact) RETURNS bytea
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';

CREATE FUNCTION contactsync.contact_subscript(internal) RETURNS internal
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.contact_subscript(internal) IS
	'Subscripts of a contact: c[''emails''] is c -> ''emails'', and more subscripts lead into that as jsonb''s do.';

CREATE TYPE contactsync.contact (
	INPUT = contactsync.contact_in,
	OUTPUT = contactsync.contact_out,
	RECEIVE = contactsync.contact_recv,
	SEND = contactsync.contact_send,
	SUBSCRIPT = contactsync.contact_subscript,
	INTERNALLENGTH = VARIABLE,
	ALIGNMENT = int4,
	STORAGE = extended
);
COMMENT ON TYPE contactsync.contact IS 'A person''s contact data, with the provenance of each value: JSON text in and out.';

CREATE FUNCTION contactsync.contact_to_jsonb(contactsync.contact) RETURNS jsonb
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.contact_to_jsonb(contactsync.contact) IS 'The canonical fields as jsonb, without provenance.';
CREATE FUNCTION contactsync.contact_of_jsonb(jsonb) RETURNS contactsync.contact
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.contact_of_jsonb(jsonb) IS
	'A contact from canonical JSON; unknown members go to metadata. Errors: 22P02 with the JSON path in the detail, 54000 above a limit.';
CREATE CAST (contactsync.contact AS jsonb) WITH FUNCTION contactsync.contact_to_jsonb(contactsync.contact) AS ASSIGNMENT;
CREATE CAST (jsonb AS contactsync.contact) WITH FUNCTION contactsync.contact_of_jsonb(jsonb);

CREATE FUNCTION contactsync.contact_get(contactsync.contact, text) RETURNS jsonb
	LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.contact_get(contactsync.contact, text) IS 'Implementation of ->';
CREATE FUNCTION contactsync.contact_get_text(contactsync.contact, text) RETURNS text
	LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.contact_get_text(contactsync.contact, text) IS 'Implementation of ->>';
CREATE OPERATOR contactsync.-> (LEFTARG = contactsync.contact, RIGHTARG = text, FUNCTION = contactsync.contact_get);
COMMENT ON OPERATOR contactsync.-> (contactsync.contact, text) IS 'a field as jsonb';
CREATE OPERATOR contactsync.->> (LEFTARG = contactsync.contact, RIGHTARG = text, FUNCTION = contactsync.contact_get_text);
COMMENT ON OPERATOR contactsync.->> (contactsync.contact, text) IS 'a field as text';

DO $$
DECLARE
	o record;
BEGIN
	FOR o IN SELECT * FROM (VALUES
		('=', 'eq', '=', '<>', 'eqsel', 'eqjoinsel', ', HASHES, MERGES', 'equal content, stamps aside'),
		('<>', 'ne', '<>', '=', 'neqsel', 'neqjoinsel', '', 'different content'),
		('<', 'lt', '>', '>=', 'scalarltsel', 'scalarltjoinsel', '', 'less than'),
		('<=', 'le', '>=', '>', 'scalarlesel', 'scalarlejoinsel', '', 'less than or equal'),
		('>=', 'ge', '<=', '<', 'scalargesel', 'scalargejoinsel', '', 'greater than or equal'),
		('>', 'gt', '<', '<=', 'scalargtsel', 'scalargtjoinsel', '', 'greater than')
	) AS v (op, fn, com, neg, res, jn, more, doc)
	LOOP
		EXECUTE pg_catalog.format('CREATE FUNCTION contactsync.contact_%s(contactsync.contact, contactsync.contact) '
			'RETURNS boolean LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS ''MODULE_PATHNAME''', o.fn);
		EXECUTE pg_catalog.format('COMMENT ON FUNCTION contactsync.contact_%s(contactsync.contact, contactsync.contact) '
			'IS %L', o.fn, 'Implementation of ' || o.op);
		EXECUTE pg_catalog.format('CREATE OPERATOR contactsync.%s (LEFTARG = contactsync.contact, '
			'RIGHTARG = contactsync.contact, FUNCTION = contactsync.contact_%s, COMMUTATOR = OPERATOR(contactsync.%s), '
			'NEGATOR = OPERATOR(contactsync.%s), RESTRICT = %s, JOIN = %s%s)', o.op, o.fn, o.com, o.neg, o.res, o.jn, o.more);
		EXECUTE pg_catalog.format('COMMENT ON OPERATOR contactsync.%s (contactsync.contact, contactsync.contact) IS %L',
			o.op, o.doc);
	END LOOP;
END
$$;

CREATE FUNCTION contactsync.contact_cmp(contactsync.contact, contactsync.contact) RETURNS integer
	LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.contact_cmp(contactsync.contact, contactsync.contact) IS 'Less, equal or greater, by content.';
CREATE FUNCTION contactsync.contact_hash(contactsync.contact) RETURNS integer
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.contact_hash(contactsync.contact) IS 'Hash of the content.';
CREATE FUNCTION contactsync.contact_hash_extended(contactsync.contact, bigint) RETURNS bigint
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.contact_hash_extended(contactsync.contact, bigint) IS 'Hash of the content, seeded.';

-- no equalimage function: equal contacts may differ in their stamps
CREATE OPERATOR CLASS contactsync.contact_ops DEFAULT FOR TYPE contactsync.contact USING btree AS
	OPERATOR 1 contactsync.<, OPERATOR 2 contactsync.<=, OPERATOR 3 contactsync.=,
	OPERATOR 4 contactsync.>=, OPERATOR 5 contactsync.>,
	FUNCTION 1 contactsync.contact_cmp(contactsync.contact, contactsync.contact);
COMMENT ON OPERATOR CLASS contactsync.contact_ops USING btree IS 'Orders contacts by content.';
CREATE OPERATOR CLASS contactsync.contact_ops DEFAULT FOR TYPE contactsync.contact USING hash AS
	OPERATOR 1 contactsync.=,
	FUNCTION 1 contactsync.contact_hash(contactsync.contact),
	FUNCTION 2 contactsync.contact_hash_extended(contactsync.contact, bigint);
COMMENT ON OPERATOR CLASS contactsync.contact_ops USING hash IS 'Hashes contacts by content.';

CREATE FUNCTION contactsync.contact_identical(a contactsync.contact, b contactsync.contact) RETURNS boolean
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.contact_identical(contactsync.contact, contactsync.contact) IS
	'Equal to the byte, provenance included; = compares content only.';
CREATE FUNCTION contactsync.contact_keys(contact contactsync.contact) RETURNS text[]
	LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.contact_keys(contactsync.contact) IS
	'What the contact can be recognised by: email:<address, folded> and tel:<E.164>.';
CREATE FUNCTION contactsync.contact_patch(contact contactsync.contact, patch jsonb) RETURNS contactsync.contact
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.contact_patch(contactsync.contact, jsonb) IS
	'Apply a JSON merge patch (RFC 7396): null removes, a list replaces the list. Errors: 22P02, 22023, 54000.';
CREATE FUNCTION contactsync.contact_provenance(contact contactsync.contact) RETURNS jsonb
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.contact_provenance(contactsync.contact) IS
	'For each stamped value: source, as_of, changed_at and flags; list elements as field:key.';

CREATE FUNCTION contactsync.normalize_email(address text, aliases boolean DEFAULT false) RETURNS text
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'contact_email_normalize';
COMMENT ON FUNCTION contactsync.normalize_email(text, boolean) IS
	'A mail address as contacts keep it, or NULL if it is none: mailto:, a name and the like taken off, the domain in ASCII and '
	'lower case. With aliases, the mailbox behind it: googlemail.com as gmail.com, without Gmail''s dots and known providers'' +tags.';
CREATE FUNCTION contactsync.email_status(address text) RETURNS text
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'contact_email_status';
COMMENT ON FUNCTION contactsync.email_status(text) IS
	'valid; unusual: correct, but an address literal, a host without a domain, a numeric top-level domain or a local part that needs '
	'its quotes; repaired: an address once what stands around it is taken off; invalid.';

CREATE FUNCTION contactsync.from_vcard(card text) RETURNS SETOF contactsync.contact
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'contact_from_vcard_text';
COMMENT ON FUNCTION contactsync.from_vcard(text) IS
	'The contacts of vCards (2.1, 3.0, 4.0); what cannot be read is left out, with a notice. Error: 54000 above 16 MB.';
CREATE FUNCTION contactsync.from_vcard(card bytea) RETURNS SETOF contactsync.contact
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'contact_from_vcard_bytea';
COMMENT ON FUNCTION contactsync.from_vcard(bytea) IS
	'The contacts of a vCard file as it is, in whatever encoding; what cannot be read is left out, with a notice.';
CREATE FUNCTION contactsync.to_vcard(c contactsync.contact, version text DEFAULT '4.0') RETURNS text
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'contact_to_vcard_sql';
COMMENT ON FUNCTION contactsync.to_vcard(contactsync.contact, text) IS
	'The contact as a vCard of version 3.0 or 4.0. Error: 22023 for any other version.';

CREATE FUNCTION contactsync.csv_lines(content text, delimiter text DEFAULT NULL) RETURNS SETOF text[]
	LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'contact_csv_lines_text';
COMMENT ON FUNCTION contactsync.csv_lines(text, text) IS
	'The lines of CSV text that are not blank, the header being the first; without a delimiter it is found out. Errors: 22P02 unterminated quote, 22023, 54000.';
CREATE FUNCTION contactsync.csv_lines(content bytea, delimiter text DEFAULT NULL) RETURNS SETOF text[]
	LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'contact_csv_lines_bytea';
COMMENT ON FUNCTION contactsync.csv_lines(bytea, text) IS
	'The lines of a CSV file as it is: UTF-8, UTF-16 with a byte order mark, else Windows-1252. Errors: 22P02 unterminated quote, 22021 null bytes, 22P05, 22023, 54000.';
CREATE FUNCTION contactsync.contact_from_csv(header text[], line text[], date_order text DEFAULT 'mdy') RETURNS contactsync.contact
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION contactsync.contact_from_csv(text[], text[], text) IS
	'A line of an address book exported by Google, Outlook or Thunderbird, or with plain column names; what has no field goes to metadata. Errors: 22023, 2202E, 54000.';

CREATE FUNCTION contactsync.from_jscontact(card jsonb) RETURNS contactsync.contact
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'contact_from_jscontact';
COMMENT ON FUNCTION contactsync.from_jscontact(jsonb) IS
	'The contact of a JSContact card (RFC 9553); what has no field is metadata.jscontact, and to_jscontact gives it back. Errors: 22P02 with the JSON path in the detail, 54000 above a limit.';
CREATE FUNCTION contactsync.to_jscontact(c contactsync.contact) RETURNS jsonb
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'contact_to_jscontact';
COMMENT ON FUNCTION contactsync.to_jscontact(contactsync.contact) IS
	'The contact as a JSContact card (RFC 9553), its provenance under contactsync.dev:stamps. Without metadata.uid the uid is made of the content, and changes with it.';
