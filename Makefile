# contactsync: build, install and test with PGXS.
#
#   make            build                    make test      all suites, on a throwaway server
#   make install    install                  make clean     remove what was built
#   make sandbox    see it at work: a database, an address book, a CRM; nothing stays
#                   behind, but with KEEP=1 all of it, to look around
#   make bench      figures of this machine; VCARDS=FOLDER: of reading vCards, too
#   make fuzz       fuzz the parsers outside of a server; SECONDS_EACH=60
#
# "make test" installs the packages that it needs, builds with the flags of CI
# in a folder of its own, and uses a private copy of the PostgreSQL tree there:
# it touches no existing cluster.

EXTENSION   = contactsync
EXTVERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" $(dir $(lastword $(MAKEFILE_LIST)))contactsync.control)
MODULE_big  = contactsync
srcdir_    := $(dir $(lastword $(MAKEFILE_LIST)))

MODULE_DIRS = contact merge stats store http sync queue webhook worker
OBJS        = $(patsubst $(srcdir_)%.c,%.o,$(wildcard $(srcdir_)src/*.c) \
              $(foreach d,$(MODULE_DIRS),$(wildcard $(srcdir_)src/$(d)/*.c)))
MODULE_HEADERS = $(wildcard $(srcdir_)src/*.h $(srcdir_)src/*/*.h)

# The install script, in order: a piece may use what stands before it.
SQL_PIECES  = src/prologue.sql \
              src/contact/contact.sql \
              src/contact/contact_phone.sql \
              src/contact/contact_query.sql \
              src/merge/merge_policy.sql \
              src/merge/merge_aggregate.sql \
              src/store/tenant.sql \
              src/stats/stats.sql \
              src/store/tables.sql \
              src/store/secret.sql \
              src/store/ingest.sql \
              src/store/policy.sql \
              src/sync/connector.sql \
              src/sync/source.sql \
              src/sync/run.sql \
              src/queue/fetch.sql \
              src/queue/queue.sql \
              src/store/directory.sql \
              src/store/decide.sql \
              src/store/identity.sql \
              src/sync/reconcile.sql \
              src/sync/schedule.sql \
              src/sync/lifecycle.sql \
              src/store/review.sql \
              src/store/edit.sql \
              src/store/compact.sql \
              src/store/history.sql \
              src/store/rebuild.sql \
              src/webhook/webhook.sql \
              src/sync/file.sql \
              src/sync/write.sql \
              src/stats/monitor.sql \
              src/stats/health.sql \
              src/epilogue.sql
CONNECTORS  = $(sort $(wildcard $(srcdir_)src/sync/connectors/*.json))

SCRIPT      = $(EXTENSION)--$(EXTVERSION).sql
DATA_built  = $(SCRIPT)
DATA        = $(wildcard $(srcdir_)src/upgrade/*.sql)
EXTRA_CLEAN = $(SCRIPT)

REGRESS     = $(sort $(basename $(notdir $(wildcard $(srcdir_)sql/*.sql))))
REGRESS_OPTS = --inputdir=$(srcdir) --temp-instance=tmp_check --temp-config=$(srcdir)/test/regress.conf
ISOLATION   = $(sort $(basename $(notdir $(wildcard $(srcdir_)test/isolation/specs/*.spec))))
ISOLATION_OPTS = --inputdir=$(srcdir)/test/isolation --temp-instance=tmp_check_iso --temp-config=$(srcdir)/test/regress.conf
TAP_TESTS   = 1
PROVE_TESTS ?= $(sort $(wildcard $(srcdir_)test/t/*.pl))

PG_CPPFLAGS = -I$(srcdir_)src
PG_CPPFLAGS += $(shell pkg-config --cflags libxml-2.0 libidn2 libmicrohttpd)
# before C23 a call of what no header declares is only a warning, and then fails to load
PG_CFLAGS = -Werror=implicit-function-declaration
SHLIB_LINK  = $(shell pkg-config --libs libcurl libcrypto libxml-2.0 libidn2 libmicrohttpd)

PG_CONFIG  ?= pg_config
PGXS       := $(shell $(PG_CONFIG) --pgxs)
override with_llvm = no
include $(PGXS)


# Debian's PostgreSQL is built without dependency tracking.
$(OBJS): $(MODULE_HEADERS)

all: $(SCRIPT)
$(SCRIPT): $(addprefix $(srcdir_),$(SQL_PIECES)) $(CONNECTORS) $(srcdir_)src/join.sh $(srcdir_)contactsync.control
	sh $(srcdir_)src/join.sh $(addprefix $(srcdir_),$(SQL_PIECES)) -- $(CONNECTORS) > $@.tmp && mv $@.tmp $@

.PHONY: test sandbox bench fuzz
test:
	+$(srcdir_)test/run test
sandbox:
	+@$(srcdir_)test/sandbox/run
bench:
	+@$(srcdir_)test/bench/run
fuzz:
	+@$(srcdir_)test/fuzz/run $(or $(SECONDS_EACH),60)
