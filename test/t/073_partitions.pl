# A source in parts: the contact folders of the emulated Microsoft Graph, each with a
# cursor of its own.  Folders come and go, people move between them, a run dies in the
# middle; what is here is what the emulator holds.
use strict;
use warnings;
use File::Spec;
use FindBin;
use lib $FindBin::Bin;
use JSON::PP;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('partitions');
my $dir = File::Spec->rel2abs($node->basedir . '/secrets');
mkdir $dir or die $!;
spew("$dir/key", ('ab' x 32) . "\n");
$node->init;
$node->append_conf('postgresql.conf', qq{
shared_preload_libraries = 'contactsync'
contactsync.secret_key_file = '$dir/key'
contactsync.http_retries = 0
autovacuum = off
});
$node->start;
my ($emulator, $port) = start_providers($dir);

sub sql { return $node->safe_psql('postgres', "SET search_path = contactsync, public; $_[0]") }
sub last_error { return sql('SELECT error FROM runs ORDER BY id DESC LIMIT 1') }
sub run_source
{
	my ($source, $full) = @_;
	my $call = $full ? "sync('$source', true)" : "sync('$source')";
	return sql("SELECT $call AS run \\gset\nSELECT wait_for_run(:run, '60 s') AS state \\gset\n"
		. "SELECT concat_ws(' ', :'state', kind, cause, CASE WHEN certified THEN 'certified' END) FROM runs WHERE id = :run");
}
sub same_as
{
	my ($source, $name) = @_;
	my $truth = join("\n", sort map { join('|', @$_) } @{ control(op => 'people', provider => 'graph')->{people} });
	my $here = sql(qq{SELECT concat_ws('|', source_id, state ->> 'first_name', state ->> 'last_name', state -> 'emails' -> 0 ->> 'address', state ->> 'title')
		FROM records WHERE source = '$source' AND alive});
	is(join("\n", sort split(/\n/, $here)), $truth, $name);
}
sub asked { return join("\n", grep { !/control/ } @{ control(op => 'log')->{requests} }) }
sub graph { return control(provider => 'graph', @_) }

sql('CREATE EXTENSION contactsync');
graph(op => 'reset', count => 40);
graph(op => 'set', page => 7);
# a folder in a folder, names that have to be escaped, more folders than a page has
graph(op => 'folder', folder => 'AAFamily=', parent => 'contacts');
graph(op => 'folder', folder => 'AA/Friends +1=', parent => 'AAFamily=');
graph(op => 'folder', folder => "AAFolder$_=", parent => 'contacts') for 1 .. 4;
graph(op => 'move', id => 1000 + $_, folder => 'AAFamily=') for 1 .. 10;
graph(op => 'move', id => 1000 + $_, folder => 'AA/Friends +1=') for 11 .. 20;

sub add_graph
{
	my ($name, %parameters) = @_;
	my $settings = encode_json({ url => "http://127.0.0.1:$port/graph", parameters => { page_size => '7', %parameters }, poll => JSON::PP::false,
		rate => JSON::PP::false, allow_http => JSON::PP::true, allow_private => JSON::PP::true });
	sql(qq{SELECT add_source('$name', 'graph', '$settings', '{"token": "tok"}')});
}
add_graph('graph');
is(run_source('graph'), 'succeeded full request certified', 'a first read') or diag(last_error());
same_as('graph', 'of all folders, with those within them');
is(sql(q{SELECT string_agg(k, ' ' ORDER BY k) FROM sources, jsonb_object_keys("cursor" -> 'partitions') k WHERE name = 'graph'}),
	'AA/Friends +1= AAFamily= AAFolder1= AAFolder2= AAFolder3= AAFolder4= contacts', 'a cursor for each of them');
asked();
is(run_source('graph'), 'succeeded incremental request', 'what changed');
my $asked = asked();
is(scalar(() = $asked =~ /deltatoken/g), 7, 'is asked of each folder by its own token') or diag($asked);
unlike($asked, qr/skiptoken/, 'and nothing is read twice');

# ---- people move: both folders speak of them, in whatever order ----
my $before = sql(q{SELECT id FROM contacts WHERE tenant_id = 'default' ORDER BY id});
graph(op => 'move', id => 1001, folder => 'contacts');			# read first where they come, last where they leave
graph(op => 'move', id => 1030, folder => 'AAFolder4=');		# and the other way round
graph(op => 'move', id => 1031, folder => 'AAFolder4=');
graph(op => 'edit', id => 1031, fields => { title => 'Moved' });
is(run_source('graph'), 'succeeded incremental request', 'people move');
same_as('graph', 'and are not lost');
is(sql(q{SELECT id FROM contacts WHERE tenant_id = 'default' ORDER BY id}), $before, 'nor are they other people now');
is(sql(q{SELECT count(*) FROM directory WHERE title = 'Moved'}), 1, 'a change that came with the move is here');
graph(op => 'move', id => 1030, folder => 'contacts');
graph(op => 'delete', id => 1031);
graph(op => 'delete', id => 1002);
is(run_source('graph'), 'succeeded incremental request', 'one moves back, two are deleted');
same_as('graph', 'and that is so here');

# ---- folders come and go ----
graph(op => 'folder', folder => 'AANew=', parent => 'AAFolder2=');
graph(op => 'move', id => 1025, folder => 'AANew=');
graph(op => 'create', fields => { first => 'Ann', last => 'New', email => 'ann@new.example', phone => '+44 20 7946 0999', company => 'C', title => 'T', folder => 'AANew=' });
is(run_source('graph'), 'succeeded incremental request', 'a new folder');
same_as('graph', 'is read from its start');
graph(op => 'unfolder', folder => 'AAFamily=');
is(run_source('graph'), 'succeeded full cursor lost certified', 'a folder that is gone makes the run a full one') or diag(last_error());
is(sql(q{SELECT missed FROM runs ORDER BY id DESC LIMIT 1}), 18, 'what it held is missed') or diag(sql('TABLE runs'));
run_source('graph', 1);
is(sql(q{SELECT held_deletes FROM status WHERE source = 'graph'}), 18, 'and held: it is more than a fifth of all');
sql(q{SELECT approve_run(id) FROM runs WHERE held_deletes > 0});
$node->poll_query_until('postgres', q{SELECT NOT EXISTS (SELECT FROM contactsync.inbox)}) or die;
same_as('graph', 'until a person says so');

# ---- a cursor that is lost, items that are not whole ----
graph(op => 'edit', id => 1036, fields => { title => 'Unseen' });
graph(op => 'expire');
is(run_source('graph'), 'succeeded full cursor lost certified', 'tokens are lost: a full read of all folders');
same_as('graph', 'brings what changed');
graph(op => 'mode', mode => 'partial');
graph(op => 'edit', id => 1025, fields => { title => 'Partial' });
asked();
is(run_source('graph'), 'succeeded incremental request', 'an item that is not whole');
like(asked(), qr{GET /graph/me/contactFolders/AANew=/contacts/AAMk1025=$}m, 'is fetched from its folder');
graph(op => 'mode', mode => undef);
same_as('graph', 'and nothing of it is cleared');

# ---- one folder only ----
add_graph('one', folder => 'AANew=');
asked();
is(run_source('one'), 'succeeded full request certified', 'a source of one folder') or diag(last_error());
is(sql(q{SELECT count(*) FROM records WHERE source = 'one'}), 2, 'has what lies in it');
unlike(asked(), qr{contactFolders(/[^/]*/childFolders)? }, 'and no others are looked for');
add_graph('none', folder => 'AANone=');
like(run_source('none'), qr/^failed full/, 'a folder that is not there: ' . last_error());

# ---- death in the middle: of the list of folders, of the first folder, of the last ----
for my $skip (2, 9, 13)
{
	graph(op => 'edit', id => 1000 + $_, fields => { title => "Death $skip" }) for 21 .. 29, 31 .. 40;
	graph(op => 'mode', mode => 'stall', skip => $skip, times => 1);
	my $run = sql(q{SELECT sync('graph', true)});
	$node->poll_query_until('postgres', "SELECT pages = $skip AND state = 'running' FROM contactsync.runs WHERE id = $run") or die;
	$node->stop('immediate');
	graph(op => 'mode', mode => undef);
	$node->start;
	$node->poll_query_until('postgres', "SELECT state NOT IN ('running', 'queued') FROM contactsync.runs WHERE id = $run") or die;
	sql("SELECT wait_for_run($run)");
	is(sql("SELECT state, attempt, certified FROM runs WHERE id = $run"), 'succeeded|2|t', "a crash after $skip requests: the run goes on") or diag(sql("SELECT error FROM runs WHERE id = $run"));
	same_as('graph', 'to the same end');
	is(run_source('graph'), 'succeeded incremental request', 'and its cursor is good');
}
$node->stop('fast');
unlike(slurp_file($node->logfile), qr/TRAP|PANIC/, 'no assertion failed');
$emulator->kill_kill;
done_testing();
