# The same events give the same contacts, in whatever order, batches and number
# of copies they come: through the real ingest and process.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Histories;
use List::Util qw(shuffle);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{SEED} || 20261125;
srand($seed);
note("SEED=$seed repeats this run");

my $node = PostgreSQL::Test::Cluster->new('convergence');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'contactsync'\ncontactsync.enabled = off\nfsync = off\njit = off");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION contactsync;
	SELECT contactsync.add_source(s, 'canonical', jsonb_build_object('class', c))
	FROM (VALUES ('crm', 'crm'), ('mkt', 'crm'), ('phone', 'device')) v (s, c);
});

# Every rule on every kind of cell, in turn.
my @policies = (
	q{{"job": {"rule": "source_priority", "sources": ["device", "crm"]}, "note": "manual_review", "phones": "last_write_wins",
		"tags": {"rule": "source_priority", "sources": ["mkt"]}, "metadata.k": "manual_review", "name": "most_frequent"}},
	q{{"job": "most_frequent", "note": {"rule": "oldest", "clear": "ignore"}, "phones": {"rule": "most_frequent", "clear": {"crm": "ignore"}},
		"tags": {"rule": "oldest", "clear": "authoritative"}, "metadata": {"rule": "most_frequent", "clear": "review"},
		"emails.primary": "most_frequent", "name": "most_complete"}},
	q{{"job": "most_complete", "note": {"rule": "most_frequent", "clear": "authoritative"}, "phones": "verified_first", "tags": "most_complete",
		"metadata": {"rule": "manual_review", "clear": {"mkt": "authoritative"}},
		"emails": "most_complete", "phones.primary": "oldest", "name": "oldest"}},
	q{{"job": "oldest", "nickname": {"rule": "most_frequent", "sources": ["crm"], "only": true}, "phones": "oldest", "tags": "most_frequent",
		"work": {"rule": "manual_review", "members": ["title", "note"]}, "metadata.k": "oldest", "name": "manual_review", "emails": "verified_first"}});

for my $history (1 .. 4)
{
	my @templates = map { random_event(20, 1) } 1 .. 350;
	my @events = (map({ receive($_) } @templates), map { receive($_) } grep { /RECEIPT/ } @templates);
	my $first;
	my $policy = $policies[($history - 1) % @policies];
	$node->safe_psql('postgres', "INSERT INTO contactsync.policies (version, policy)
		SELECT coalesce(max(version), 0) + 1, '$policy' FROM contactsync.policies");
	for my $round (1 .. 5)
	{
		my @order = $round == 1 ? @events : shuffle(@events, map { pick(@events) } 1 .. 100);
		my $sql = q{TRUNCATE contactsync.records, contactsync.observations, contactsync.contacts, contactsync.identities,
			contactsync.contact_aliases, contactsync.conflicts, contactsync.inbox;};
		my $batch = $round == 1 ? 10000 : pick(1, 3, 20, 500);
		$sql .= "SET contactsync.batch_size = $batch;";
		for my $i (0 .. $#order)
		{
			$sql .= $order[$i];
			$sql .= 'SELECT contactsync.process();' if $round > 1 && rand() < .1;
		}
		$sql .= 'SELECT contactsync.process();';
		$node->safe_psql('postgres', $sql);
		is($node->safe_psql('postgres', 'SELECT count(*) FROM contactsync.inbox'), '0', "history $history, order $round: all applied");
		my $got = $node->safe_psql('postgres', $Histories::content);
		$first = $got if $round == 1;
		is($node->safe_psql('postgres', 'SELECT problem FROM contactsync.verify()'), '', "history $history, order $round: incremental = rebuild")
		  or diag("SEED=$seed");
		ok($got eq $first, "history $history, order $round, batches of $batch: the same contacts")
		  or diag("SEED=$seed\n" . first_difference($first, $got));
	}
}

$node->stop;
done_testing();
