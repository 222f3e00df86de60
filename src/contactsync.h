/*
 * contactsync.h
 *		What all modules share: the extension's names and its entry point.
 */
#ifndef CONTACTSYNC_H
#define CONTACTSYNC_H

#define CONTACTSYNC_SCHEMA		"contactsync"
#define CONTACTSYNC_OWNER		"contactsync_owner"
#define CONTACTSYNC_WORKER		"contactsync_worker"
#define CONTACTSYNC_ADMIN		"contactsync_admin"
#define CONTACTSYNC_APP			"contactsync_app"
#define CONTACTSYNC_ANALYST		"contactsync_analyst"

#endif							/* CONTACTSYNC_H */
