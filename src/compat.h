/*
 * compat.h
 *		Differences between PostgreSQL 15 and 18, in one place.
 *
 * Logic elsewhere is written against the newest form; a version test in the
 * middle of it is a sign that a shim is missing here.
 */
#ifndef CONTACTSYNC_COMPAT_H
#define CONTACTSYNC_COMPAT_H

#include "fmgr.h"

#if PG_VERSION_NUM >= 160000
#include "nodes/miscnodes.h"
#include "varatt.h"
#else

/* Soft errors came with 16: before it, an input function can only throw. */
#define errsave(context_, ...) \
	do { (void) (context_); ereport(ERROR, __VA_ARGS__); } while (0)
#define ereturn(context_, dummy_, ...) \
	do { (void) (context_); ereport(ERROR, __VA_ARGS__); return dummy_; } while (0)
#define SOFT_ERROR_OCCURRED(context_) false

extern PGDLLEXPORT void _PG_init(void);
#endif

/*
 * Call an input function of ours; false on a soft error.  A macro: it needs the
 * caller's includes only where it is used.
 */
#if PG_VERSION_NUM >= 160000
#define direct_input(func_, text_, context_, result_) \
	DirectInputFunctionCallSafe((func_), (text_), InvalidOid, -1, (context_), (result_))
#else
#define direct_input(func_, text_, context_, result_) \
	((void) (context_), *(result_) = DirectFunctionCall1((func_), CStringGetDatum(text_)), true)
#endif

/* Needs utils/backend_status.h; from 1 on. */
#if PG_VERSION_NUM >= 160000
#define pgstat_local_backend(i_)	pgstat_get_local_beentry_by_index(i_)
#else
#define pgstat_local_backend(i_)	pgstat_fetch_stat_local_beentry(i_)
#endif

#if PG_VERSION_NUM >= 170000
#define MyLocalTransactionId	(MyProc->vxid.lxid)
#else
#define MyLocalTransactionId	(MyProc->lxid)
#endif

#if PG_VERSION_NUM < 170000
#define AmBackgroundWorkerProcess()		IsBackgroundWorker
#endif

/* Needs utils/datetime.h. */
#if PG_VERSION_NUM >= 160000
#define decode_date_time(field_, ftype_, nf_, dtype_, tm_, fsec_, tz_) \
	DecodeDateTime((field_), (ftype_), (nf_), (dtype_), (tm_), (fsec_), (tz_), &(DateTimeErrorExtra) {0})
#else
#define decode_date_time(field_, ftype_, nf_, dtype_, tm_, fsec_, tz_) \
	DecodeDateTime((field_), (ftype_), (nf_), (dtype_), (tm_), (fsec_), (tz_))
#endif

/* Of databases only; needs utils/acl.h. */
#if PG_VERSION_NUM < 160000
#define object_ownercheck(class_, object_, role_)	pg_database_ownercheck((object_), (role_))
#endif

#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#endif

#if PG_VERSION_NUM >= 170000
#define estimate_array_length_in(root_, node_)	estimate_array_length((root_), (node_))
#else
#define estimate_array_length_in(root_, node_)	estimate_array_length((node_))
#endif

#if PG_VERSION_NUM >= 170000
#define CreateWaitEventSetIn(context_, n_)	CreateWaitEventSet(NULL, (n_))
#else
#define CreateWaitEventSetIn(context_, n_)	CreateWaitEventSet((context_), (n_))
#endif

/* Needs access/genam.h. */
#if PG_VERSION_NUM >= 180000
#define index_beginscan_of(rel_, index_, snapshot_, nkeys_)	index_beginscan((rel_), (index_), (snapshot_), NULL, (nkeys_), 0)
#else
#define index_beginscan_of(rel_, index_, snapshot_, nkeys_)	index_beginscan((rel_), (index_), (snapshot_), (nkeys_), 0)
#endif

/* What table_tuple_update() says about index entries, and to make them. */
#if PG_VERSION_NUM >= 160000
#define update_kind				TU_UpdateIndexes
#define insert_index_tuples(info_, slot_, estate_, update_) \
	ExecInsertIndexTuples((info_), (slot_), (estate_), (update_), false, NULL, NIL, false)
#else
#define update_kind				bool
#define insert_index_tuples(info_, slot_, estate_, update_) \
	ExecInsertIndexTuples((info_), (slot_), (estate_), (update_), false, NULL, NIL)
#endif

#if PG_VERSION_NUM < 180000
#define pg_noreturn		__attribute__((noreturn))
#endif

#endif							/* CONTACTSYNC_COMPAT_H */
