/*
 * store_activate.c
 *		Does this database hold anybody's data?
 *
 * A database without an activation row of its own is a copy if it has data, and
 * new if it has none.  Row security would show the data of one tenant only, so
 * the tables are read directly; only whether there is a row is learned.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "fmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "compat.h"
#include "contactsync.h"

PG_FUNCTION_INFO_V1(store_holds_data_sql);

/*
 * _holds_data() -> boolean
 */
Datum
store_holds_data_sql(PG_FUNCTION_ARGS)
{
	static const char *const tables[] = {"sources", "records", "inbox", "observations", "contacts", "policies"};
	Oid			nspid = get_namespace_oid(CONTACTSYNC_SCHEMA, false);
	bool		found = false;

	for (int i = 0; i < lengthof(tables) && !found; i++)
	{
		Relation	rel = table_open(get_relname_relid(tables[i], nspid), AccessShareLock);
		SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);

		found = HeapTupleIsValid(systable_getnext(scan));
		systable_endscan(scan);
		table_close(rel, AccessShareLock);
	}
	PG_RETURN_BOOL(found);
}
