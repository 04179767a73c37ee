"""Makes the parts of a chief's contracts and hands each the others (I/O)."""

from __future__ import annotations

import sys
from collections.abc import Callable

from company import contract_views as cv
from company import views
from company.chief.commit import Committer
from company.chief.contracts.archive import Archive
from company.chief.contracts.desk import Desk, Party
from company.chief.contracts.drafting import terms_of
from company.chief.contracts.driver import BookDriver
from company.chief.contracts.links import Links
from company.chief.contracts.living import Living
from company.chief.contracts.notes import Notes
from company.chief.contracts.seeking import Seeker
from company.chief.contracts.service import ContractService
from company.chief.contracts.supplying import Supplying
from company.chief.contracts.trust import Trust
from company.chief.contracts.wanting import Need
from company.chief.facade import Conflict, NotFound
from company.chief.library import Library
from company.chief.network.contact import Contact
from company.chief.network.service import NetworkService
from company.chief.store.store import Store
from p2p.base.errors import ParallelError, UsageError
from p2p.base.keys import Identity, company_id_text
from p2p.contracts.book import Book
from p2p.contracts.chain import Chain
from p2p.contracts.signing import Signer
from p2p.contracts.terms import Terms
from p2p.net.channel import Channel
from p2p.net.clock import read_unix
from p2p.reputation.evidence import Evidence


async def build_contracts(
    *, identity: Identity, network: NetworkService, store: Store, committer: Committer, library: Library,
    jobs: Callable[[], list[views.JobView]], needs: Callable[[], list[Need]], on_change: Callable[[str], None],
) -> ContractService:  # fmt: skip
    """A contract service, loaded and not yet running."""
    ground = network.ground
    known, dialler = ground.known, network.asking.dialler
    signer = Signer(identity, ground.network_id)
    book = Book(signer, Chain(signer))
    late: list[ContractService] = []
    driver = BookDriver(
        book=book, store=store, writing=committer, send=lambda peer, message: late[0].links.send(peer, message), wall=read_unix,
        may_knock=lambda peer: late[0].may_knock(peer),
    )  # fmt: skip

    def contact_of(key: bytes) -> Contact | None:
        found = known.get(key)
        return found.contact if found is not None else None

    async def way_to(key: bytes) -> Contact | None:
        found = contact_of(key)
        if found is None or not (found.endpoints or found.relays):
            await network.finding.look_up(company_id_text(key))
            found = contact_of(key) or found
        if found is not None and (found.endpoints or found.relays):
            return found
        signed = next((c.a.terms for k, c in book.contracts.items() if k.peer == key and c.a.terms is not None), None)
        return Contact(key=key, endpoints=signed.endpoints) if signed is not None else None

    async def find(company: str) -> Contact:
        try:
            return known.find(company).contact
        except NotFound:
            key = next((k for k in evidence.companies() if company_id_text(k).startswith(company) and len(company) >= 6), None)
            if key is not None:
                return contact_of(key) or Contact(key=key)
            if not company.startswith("co-") or not await network.finding.look_up(company):
                raise
            return known.find(company).contact

    def name_of(key: bytes) -> str:
        found = known.get(key)
        return found.name if found is not None else ""

    async def open_channel(key: bytes) -> Channel:
        return await dialler.open(await way_to(key) or Contact(key=key), "peer", 8.0)

    evidence = Evidence(identity.public)
    trust = Trust(
        driver=driver, store=store, directory=ground.directory, unix_time=read_unix, open_channel=open_channel, find=find, name_of=name_of,
        evidence=evidence,
    )  # fmt: skip
    notes = Notes(store)

    async def party(company: str) -> Party:
        contact = await find(company)
        if contact.key == identity.public:
            raise UsageError("own-company", "a company cannot borrow from itself")
        return Party(key=contact.key, price_milli=await price_of(network, contact.key))

    async def draft_terms(request: cv.ContractRequest, party: Party) -> Terms:
        package = await package_for(library, jobs, request.package)
        row = await library.package_row(package.digest)
        return terms_of(
            request, package=row.digest, processor=row.processor, memory_bytes=package.memory_bytes, time_limit_s=package.time_limit_s,
            python=f"{sys.version_info.major}.{sys.version_info.minor}", price_milli=party.price_milli, endpoints=ground.endpoints(),
        )  # fmt: skip

    desk = Desk(
        driver=driver, notes=notes, archive=Archive(store, identity.public, ground.network_id), party=party, draft_terms=draft_terms,
        verdict_of=lambda key: late[0].verdict_of(key), capacity=lambda: late[0].capacity(), name_of=name_of, on_change=on_change,
    )  # fmt: skip
    advertising = network.advertising
    service = ContractService(
        driver=driver, links=Links(dialler.open, way_to, on_message=driver.on_message, on_connected=driver.on_connected),
        living=Living(driver, contact_of, trust.yardsticks), desk=desk, trust=trust,
        lending=lambda: (advertising.policy, advertising.standing, advertising.facts()), on_change=on_change,
        seeker=Seeker(desk=desk, store=store, search=network.search, needs=needs),
        supplying=Supplying(driver=driver, store=store, unix_time=read_unix),
    )  # fmt: skip
    late.append(service)
    await service.load()
    network.door.contracts, network.door.halves = service.links.serve, trust.answer
    network.reclaim = service.reclaim
    ground.trust_of, ground.promised = trust.score, lambda: book.slots.promised
    ground.supply, ground.supply_why = service.supplying.supply, service.supplying.why
    ground.could_take = lambda company: service.granting.could_take(company, service.capacity())
    return service


async def price_of(network: NetworkService, key: bytes) -> int:
    """What a company asks for a core-second in its newest offer; 0 where none is found."""
    try:
        offers = await network.offers()
    except ParallelError:
        return 0
    return max((o.price_milli for o in offers if o.key == key.hex()), default=0)


async def package_for(library: Library, jobs: Callable[[], list[views.JobView]], ref: str | None) -> views.PackageView:
    """The package named, else that of the newest open job, else the only one. Raises `Conflict` where it must be named."""
    if ref is not None:
        return await library.package(ref)
    for job in jobs():
        return await library.package(job.package)
    found = await library.list_packages()
    if len(found) != 1:
        raise Conflict(
            "package-needed",
            f"{len(found)} packages are here: which one are the guests to run?",
            hint="--package NAME; company package list",
        )
    return found[0]
