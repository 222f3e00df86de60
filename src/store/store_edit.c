/*
 * store_edit.c
 *		Edits of the directory: what was changed, as a patch of the source "app".
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"

#include "compat.h"
#include "store/store.h"

PG_FUNCTION_INFO_V1(store_patch_sql);

/* What an edit says about a list. */
typedef struct ListEdit
{
	StringInfoData add;			/* elements that are new or differ; of metadata, members */
	StringInfoData remove;
	int			nadd;
	int			nremove;
} ListEdit;

/* Does an element say more than that it is not the primary one any more? */
static bool
differs(const ContactItem *old, const ContactItem *new)
{
	ContactItem a = *old;

	if (!(new->flags & CI_PRIMARY))
		a.flags &= ~CI_PRIMARY;
	return !contact_item_same(&a, new);
}

static void
add_member(StringInfo buf, int n, const ContactItem *item, bool gone)
{
	if (n > 0)
		appendStringInfoString(buf, ", ");
	if (item->field == CF_METADATA)
	{
		escape_json(buf, pnstrdup(item->key.ptr, item->key.len));
		appendStringInfoString(buf, ": ");
		if (gone)
		{
			appendStringInfoString(buf, "null");
			return;
		}
	}
	contact_item_to_json(buf, item);
}

/* A cell, by the name that users give it, and its new value. */
static void
add_cell(StringInfo cells, const ContactItem *item, bool gone)
{
	StringInfoData name;

	initStringInfo(&name);
	appendStringInfoString(&name, contact_field_names[item->field]);
	if (item->key.len > 0)
		appendStringInfo(&name, "%c%.*s", item->field == CF_METADATA ? '.' : ':', item->key.len, item->key.ptr);
	if (cells->len > 1)
		appendStringInfoString(cells, ", ");
	escape_json(cells, name.data);
	appendStringInfoString(cells, ": ");
	if (gone)
		appendStringInfoString(cells, "null");
	else
		contact_item_to_json(cells, item);
}

static void
diff_list(const ContactValue *old, const ContactValue *new, ContactField field, ListEdit *edit, StringInfo cells)
{
	initStringInfo(&edit->add);
	initStringInfo(&edit->remove);
	edit->nadd = edit->nremove = 0;
	for (int i = 0; i < new->nitems; i++)
	{
		const ContactItem *item = &new->items[i];
		int			was = item->field == field ? contact_find(old, field, item->key) : -1;

		if (item->field != field || (was >= 0 && !differs(&old->items[was], item)))
			continue;
		add_member(&edit->add, edit->nadd++, item, false);
		add_cell(cells, item, false);
	}
	for (int i = 0; i < old->nitems; i++)
	{
		const ContactItem *item = &old->items[i];

		if (item->field != field || contact_find(new, field, item->key) >= 0)
			continue;
		if (field == CF_METADATA)
			add_member(&edit->add, edit->nadd++, item, true);
		else
			add_member(&edit->remove, edit->nremove++, item, true);
		add_cell(cells, item, true);
	}
}

/*
 * _patch(old contact, new contact, OUT patch jsonb, OUT cells jsonb)
 *		What makes the one of the other, as a patch, and as an object of each cell's
 *		name and value; null = gone.
 */
Datum
store_patch_sql(PG_FUNCTION_ARGS)
{
	ContactValue old = {0};
	ContactValue new = {0};
	StringInfoData cells;
	StringInfoData buf;
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {false, false};
	bool		first = true;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (!PG_ARGISNULL(0))
		contact_deform(PG_GETARG_CONTACT_P(0), &old);
	if (!PG_ARGISNULL(1))
		contact_deform(PG_GETARG_CONTACT_P(1), &new);
	initStringInfo(&buf);
	initStringInfo(&cells);
	appendStringInfoChar(&buf, '{');
	appendStringInfoChar(&cells, '{');
	for (int f = 0; f < CF_COUNT; f++)
	{
		if (CF_IS_LIST(f))
		{
			ListEdit	edit;

			diff_list(&old, &new, f, &edit, &cells);
			if (edit.nadd + edit.nremove == 0)
				continue;
			appendStringInfo(&buf, "%s\"%s\": {", first ? "" : ", ", contact_field_names[f]);
			if (f == CF_METADATA)
				appendStringInfoString(&buf, edit.add.data);
			else
			{
				if (edit.nadd > 0)
					appendStringInfo(&buf, "\"add\": [%s]%s", edit.add.data, edit.nremove > 0 ? ", " : "");
				if (edit.nremove > 0)
					appendStringInfo(&buf, "\"remove\": [%s]", edit.remove.data);
			}
			appendStringInfoChar(&buf, '}');
		}
		else
		{
			const StrView nokey = {NULL, 0};
			int			a = contact_find(&old, f, nokey);
			int			b = contact_find(&new, f, nokey);

			if (a < 0 ? b < 0 : b >= 0 && contact_item_same(&old.items[a], &new.items[b]))
				continue;
			appendStringInfo(&buf, "%s\"%s\": ", first ? "" : ", ", contact_field_names[f]);
			if (b < 0)
				appendStringInfoString(&buf, "null");
			else
				contact_item_to_json(&buf, &new.items[b]);
			add_cell(&cells, b < 0 ? &old.items[a] : &new.items[b], b < 0);
		}
		first = false;
	}
	appendStringInfoChar(&buf, '}');
	values[0] = DirectFunctionCall1(jsonb_in, CStringGetDatum(buf.data));
	appendStringInfoChar(&cells, '}');
	values[1] = DirectFunctionCall1(jsonb_in, CStringGetDatum(cells.data));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
