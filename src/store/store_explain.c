/*
 * store_explain.c
 *		explain(): why a contact's values are what they are.
 *
 * Nothing is kept for it: the contact is resolved once more, and the claims
 * that were weighed are shown in the order of the rule that weighed them.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "store/store.h"

PG_FUNCTION_INFO_V1(store_explain_sql);

#define EXPLAIN_COLUMNS		14

static Datum
text_datum(StrView s)
{
	return PointerGetDatum(cstring_to_text_with_len(s.ptr ? s.ptr : "", s.len));
}

/* Who made a decision; NULL if it is unknown. */
static char *
decided_by(int64 decision)
{
	StoreArray	id;

	store_array_init(&id, INT8OID);
	store_array_add(&id, Int64GetDatum(decision), false);
	if (store_run("SELECT decided_by::pg_catalog.text FROM contactsync.decisions "
				  "WHERE tenant_id = contactsync.current_tenant() AND id = ($1)[1]",
				  1, (StoreArray *[]) {&id}) == 0)
		return NULL;
	return TextDatumGetCString(text_datum(store_text(0, 1)));
}

static void
put_candidate(ReturnSetInfo *rsinfo, const MergeCandidate *c, const MergeInput *inputs)
{
	Datum		values[EXPLAIN_COLUMNS] = {0};
	bool		nulls[EXPLAIN_COLUMNS] = {false};
	const MergeInput *in = c->input >= 0 ? &inputs[c->input] : NULL;
	char	   *who = c->decision_id ? decided_by(c->decision_id) : NULL;
	StringInfoData field;
	StringInfoData value;

	initStringInfo(&field);
	appendStringInfoString(&field, contact_field_names[c->field]);
	if (c->key.len > 0)
		appendStringInfo(&field, "%c%.*s", c->field == CF_METADATA ? '.' : ':', c->key.len, c->key.ptr);
	values[0] = CStringGetTextDatum(field.data);
	values[1] = Int32GetDatum(c->rank);
	if (c->item)
	{
		initStringInfo(&value);
		contact_item_to_json(&value, c->item);
		values[2] = DirectFunctionCall1(jsonb_in, CStringGetDatum(value.data));
	}
	nulls[2] = c->item == NULL;
	values[3] = in ? text_datum(in->source) : CStringGetTextDatum("decision");
	nulls[4] = in == NULL;
	if (in)
		values[4] = text_datum(in->source_id);
	values[5] = TimestampTzGetDatum(c->changed_at);
	values[6] = TimestampTzGetDatum(c->as_of);
	values[7] = CStringGetTextDatum(merge_rule_names[c->rule->kind]);
	values[8] = CStringGetTextDatum(merge_verdict_names[c->verdict]);
	nulls[9] = in == NULL;
	values[9] = CStringGetTextDatum(!c->item ? "cleared" : c->displaced ? "displaced" :
									c->verdict == MV_INCOMPLETE ? "incomplete" : c->derived ? "derived" : "own");
	nulls[10] = who == NULL;
	if (who)
		values[10] = CStringGetTextDatum(who);
	values[11] = BoolGetDatum(c->estimate);
	values[12] = BoolGetDatum(c->stale);
	nulls[13] = c->support < 0;
	values[13] = Int32GetDatum(c->support);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * _explain(contact_id uuid, field text) -> setof record
 */
Datum
store_explain_sql(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MergePolicy policy;
	MergeInput *inputs;
	MergeDecision *decisions;
	MergeResult result;
	StoreArray	contact;
	StoreArray	records;
	StoreRecord **rows;
	int			nrows;
	int64	  **members;
	pg_uuid_t	id;
	int			ninputs;
	int			ndecisions;
	int			only = -1;

	InitMaterializedSRF(fcinfo, 0);
	if (!PG_ARGISNULL(1))
	{
		text	   *name = PG_GETARG_TEXT_PP(1);
		const char *p = VARDATA_ANY(name);
		int			len = VARSIZE_ANY_EXHDR(name);
		const char *dot = memchr(p, '.', len);

		only = contact_field_lookup(p, dot ? dot - p : len);
		if (only < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("unknown field \"%s\"", text_to_cstring(name)),
					 errhint("See the columns of contactsync.directory.")));
	}

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	store_policy(&policy);
	store_array_init(&contact, UUIDOID);
	store_array_add(&contact, PG_GETARG_DATUM(0), PG_ARGISNULL(0));
	store_array_init(&records, INT8OID);
	/* any of its ids */
	if (store_run("SELECT h.contact_id FROM contactsync.contact_aliases a, contactsync.records h "
				  "WHERE a.tenant_id = contactsync.current_tenant() AND a.id = ($1)[1] "
				  "AND h.tenant_id = a.tenant_id AND h.id = a.record_id", 1, (StoreArray *[]) {&contact}) == 1)
		contact.values[0] = store_value(0, 1, &contact.nulls[0]);
	rows = store_records_by_contact(&contact, &nrows);
	if (nrows == 0)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("contact does not exist"),
				 errhint("contactsync.find() finds contacts by mail address, phone number or external id.")));
	(void) store_inputs(rows, nrows, 0, &id, &inputs, &ninputs);
	for (int i = 0; i < ninputs; i++)
		store_array_add(&records, Int64GetDatum(inputs[i].record_id), false);
	store_decisions(&policy, &records, &decisions, &ndecisions, &members);
	store_add_history(&policy, inputs, ninputs);
	merge_resolve(&policy, inputs, ninputs, decisions, ndecisions, true, &result);

	for (int i = 0; i < result.ncandidates; i++)
	{
		const MergeCandidate *c = &result.candidates[i];

		if (only >= 0 && c->field != only)
			continue;
		put_candidate(rsinfo, c, inputs);
	}
	SPI_finish();
	return (Datum) 0;
}
