/*
 * store_mapping.c
 *		Payloads as the connector of their source reads them.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#include "compat.h"
#include "store/store.h"

PG_FUNCTION_INFO_V1(store_map_sql);

static void
set_mapping(StoreMapping *m, uint64 row, int col)
{
	StrView		driver = store_text(row, col);
	bool		isnull;
	Datum		map = store_value(row, col + 1, &isnull);

	m->vcard = driver.len == 7 && memcmp(driver.ptr, "carddav", 7) == 0;
	if (isnull)
		return;
	m->map = DatumGetJsonbP(map);
	contact_map_coverage(m->map, &m->covers);
}

StoreMapping *
store_load_mappings(StoreArray *sources, int *nmappings)
{
	uint64		n = store_run("SELECT s.name, c.spec ->> 'driver', c.spec -> 'map', s.class, "
							  "coalesce(s.settings -> 'duplicates' = 'true', false), s.created_at FROM contactsync.sources s "
							  "CROSS JOIN LATERAL contactsync._connector(s.connector) AS c (spec) "
							  "WHERE s.tenant_id = contactsync.current_tenant() AND s.name = ANY ($1) ORDER BY s.name",
							  1, (StoreArray *[]) {sources});
	StoreMapping *mappings = palloc0(sizeof(StoreMapping) * Max(n, 1));

	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;

		mappings[i].source = store_text(i, 1);
		set_mapping(&mappings[i], i, 2);
		mappings[i].source_class = store_text(i, 4);
		mappings[i].many_per_source = DatumGetBool(store_value(i, 5, &isnull));
		mappings[i].since = store_time(i, 6);
	}
	*nmappings = n;
	return mappings;
}

const StoreMapping *
store_find_mapping(const StoreMapping *mappings, int n, StrView source)
{
	int			lo = 0;
	int			hi = n;

	while (lo < hi)
	{
		int			mid = (lo + hi) / 2;
		int			r = strview_cmp(mappings[mid].source, source);

		if (r == 0)
			return &mappings[mid];
		if (r < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("source \"%.*s\" of an event does not exist", source.len, source.ptr)));
}

static bool
refuse(ContactError *error, const char *message)
{
	memset(error, 0, sizeof(*error));
	error->message = message;
	strcpy(error->path, "$");
	return false;
}

/* A file's card is kept as it stands, whatever the connector. */
static bool
is_card(Jsonb *payload)
{
	JsonbValue	v;

	return JB_ROOT_IS_SCALAR(payload) && JsonbExtractScalar(&payload->root, &v) && v.type == jbvString &&
		v.val.string.len > 11 && pg_strncasecmp(v.val.string.val, "BEGIN:VCARD", 11) == 0;
}

/* A card speaks about everything. */
static bool
read_vcard(Jsonb *payload, ContactClaims *claims, ContactError *error)
{
	VcardReader reader;
	JsonbValue	v;
	char	   *text;

	if (!JB_ROOT_IS_SCALAR(payload) || !JsonbExtractScalar(&payload->root, &v) || v.type != jbvString)
		return refuse(error, "the payload is not a vCard in a JSON string");
	text = pg_server_to_any(v.val.string.val, v.val.string.len, PG_UTF8);
	contact_vcard_open(&reader, text, text == v.val.string.val ? v.val.string.len : strlen(text));
	reader.text = true;
	memset(claims, 0, sizeof(*claims));
	if (!contact_vcard_next(&reader, &claims->value))
		return refuse(error, "the payload holds no vCard");
	if (reader.limit)
	{
		refuse(error, "the vCard is too large");
		error->limit = true;
		return false;
	}
	claims->covers = (1U << CF_COUNT) - 1;
	return true;
}

bool
store_read_payload(const StoreMapping *mapping, Jsonb *payload, bool patch,
				   ContactClaims *claims, ContactError *error)
{
	if (mapping->vcard || (mapping->map == NULL && is_card(payload)))
		return patch ? refuse(error, "a vCard is no patch") : read_vcard(payload, claims, error);
	if (mapping->map)
		payload = contact_map(mapping->map, payload, patch);
	return contact_claims_from_jsonb(payload, patch, claims, error);
}

/*
 * _map(connector text, payload jsonb) -> contact
 */
Datum
store_map_sql(PG_FUNCTION_ARGS)
{
	MemoryContext context = CurrentMemoryContext;
	StoreMapping mapping = {0};
	StoreArray	name;
	ContactClaims claims;
	ContactError error;
	Contact    *result;
	Contact    *copy;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	store_array_init(&name, TEXTOID);
	store_array_add(&name, PG_GETARG_DATUM(0), false);
	if (store_run("SELECT c.spec ->> 'driver', c.spec -> 'map' FROM contactsync._connector(($1)[1]) AS c (spec) "
				  "WHERE c.spec IS NOT NULL", 1, (StoreArray *[]) {&name}) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("connector \"%s\" does not exist", text_to_cstring(PG_GETARG_TEXT_PP(0)))));
	set_mapping(&mapping, 0, 1);
	if (!store_read_payload(&mapping, PG_GETARG_JSONB_P(1), false, &claims, &error))
		contact_error_report(&error, NULL);
	result = contact_form(&claims.value);
	copy = MemoryContextAlloc(context, VARSIZE(result));
	memcpy(copy, result, VARSIZE(result));
	SPI_finish();
	PG_RETURN_CONTACT_P(copy);
}
