-- Telephone numbers: E.164, by the numbering plans compiled into the library.

CREATE FUNCTION contactsync.normalize_phone(number text, region text DEFAULT NULL) RETURNS text
	LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'contact_phone_normalize';
COMMENT ON FUNCTION contactsync.normalize_phone(text, text) IS
	'The number in E.164 (+ and digits, no extension), as dialled in the region (ISO 3166-1); without one, only numbers with + can be told. NULL if it is not even possible. A possible number and its E.164 outlive new numbering plans; what is none today may be one after an upgrade. Error: 22023 for an unknown region.';
CREATE FUNCTION contactsync.phone_status(number text, region text DEFAULT NULL) RETURNS text
	LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'contact_phone_status';
COMMENT ON FUNCTION contactsync.phone_status(text, text) IS
	'valid (in a range in use), possible (country code and length fit) or unparsed. By the numbering plans of this release, see phone_metadata_version(): a status may change with the next one, so REINDEX what is indexed by it. Error: 22023 for an unknown region.';
CREATE FUNCTION contactsync.phone_extension(number text, region text DEFAULT NULL) RETURNS text
	LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'contact_phone_extension';
COMMENT ON FUNCTION contactsync.phone_extension(text, text) IS
	'The digits of the extension written after the number, or NULL. Error: 22023 for an unknown region.';
CREATE FUNCTION contactsync.phone_metadata_version() RETURNS text
	LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'contact_phone_version';
COMMENT ON FUNCTION contactsync.phone_metadata_version() IS
	'The release of libphonenumber whose numbering plans are compiled in.';
