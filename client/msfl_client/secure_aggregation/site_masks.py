"""A site's part in the masked sums of one study: its key, the roster, a place in a sum, and the opening of it.

Whatever it refuses, it refuses before anything is computed, and writes down what leaves before it does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from msfl_client.secure_aggregation.kept_values import delete_values
from msfl_client.secure_aggregation.own_shares import keep_shares, kept_shares
from msfl_client.secure_aggregation.register import MARK_SUFFIX, Registers
from msfl_client.secure_aggregation.rosters import FOLDER, Rosters
from msfl_client.secure_aggregation.secrets import MaskSecrets, delete_secrets, make_secrets, read_secrets
from msfl_client.site.keys import load_key, make_key
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import Code, RefusedError, UpdateError
from msfl_common.secure_aggregation.context import Context
from msfl_common.secure_aggregation.roster import Entry, Roster, sign_mask_key
from msfl_common.secure_aggregation.site import MaskKeys, Opening, Shares, expect_context, expect_opening
from msfl_common.system.files import private_folder
from msfl_common.trust.signatures import canonical

_SIMULATED_KEY = "simulated.key"
_OTHER_SITES = (
    "this value was opened before in a sum of other sites: they would differ by the value of whoever came or went"
)


@dataclass(frozen=True)
class SiteMasks:
    """See the module. Made by `site_masks`.

    Attributes:
        site: whose.
        study: its settings.
        key: the site's registered key; of a simulated site, one of its own.
        folder: where all of it lies, in the state folder.
        registers: what was sent and opened.
        confirms: whether each roster counts as confirmed by a person, as at a site of a simulation.
    """

    site: SiteConfig
    study: StudyConfig
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    folder: Path
    registers: Registers
    confirms: bool

    def entry(self) -> Entry:
        """The site's line of a roster: the same key as long as its state is there, and was not set back.

        A site of a simulation makes a new key each time: it is asked at the beginning of a run, and another run asks
        its requests again.

        Raises:
            OSError: a new key cannot be written.
        """
        secrets = read_secrets(self.folder)
        if secrets is None or self.confirms or self._is_set_back():
            private_folder(self.folder, within=self.site.state)
            secrets = make_secrets(self.folder)
            self.registers.renew(keep_opened=not self.confirms)
            delete_values(self.folder)
        return sign_mask_key(self.key, self.study.name, self.site.name, secrets.public)

    def take(self, roster: Roster) -> None:
        """Keep a roster that was handed out; it serves for nothing before a person has confirmed it.

        Raises:
            RefusedError: it is not of this study, not with this site's own keys, or of fewer sites than the policy
                demands.
            OSError: it cannot be kept.
        """
        settings = self.study.secure_aggregation
        if roster.study != self.study.name:
            raise _bad(f"the roster is of study {roster.study}")
        if (roster.min_sites, roster.threshold) != (settings.min_sites, settings.threshold_of(len(roster.sites))):
            raise _bad(
                f"the roster opens sums of {roster.min_sites} sites by {roster.threshold} of them; the study says "
                f"{settings.min_sites} and {settings.threshold_of(len(roster.sites))}"
            )
        self._expect_enough(roster.min_sites)
        secrets = self._secrets()
        if self.site.name not in roster.names:
            raise _bad("the roster does not have this site")
        try:
            MaskKeys(roster, self.site.name, secrets.mask_key, secrets.secret, self.key)
        except UpdateError as error:
            raise _bad(str(error)) from None
        rosters = Rosters(self.folder)
        rosters.keep(roster)
        if self.confirms:
            rosters.confirm(roster.digest)

    def expect_confirmed(self, roster: str) -> None:
        """See that a person here has confirmed a roster, and no other since.

        Raises:
            RefusedError: nobody has, or another one is in its place.
        """
        state = Rosters(self.folder).state()
        if roster != state.serves:
            since = "; another was confirmed since, so that it has to be confirmed again" * (roster in state.confirmed)
            raise RefusedError(Code.ROSTER_UNCONFIRMED, f"study {self.study.name}, digest {roster}{since}")

    def expect(self, context: Context, request: str) -> MaskKeys:
        """What this site hides its value of a sum with.

        Args:
            context: the sum that it is asked for.
            request: digest of the request, as this site works it out.

        Raises:
            RefusedError: it has no part in such a sum, its people have not confirmed the roster, or the request's sum
                was opened already, in another one.
        """
        keys = self._keys(context.roster)
        self.expect_confirmed(context.roster)
        try:
            expect_context(keys.roster, context, self.site.name)
        except UpdateError as error:
            raise _bad(str(error)) from None
        self._expect_enough(len(context.asked))
        if context.request != request:
            raise _bad("the sum is said to be of another request than the one that came with it")
        register = self.registers.read()
        if request in register.opened and context.digest.hex() not in register.sent:
            raise _bad("this request's sum was opened already; it is not added up once more")
        return keys

    def expect_same_sites(self, roster: Roster, context: Context, tells: Collection[str]) -> None:
        """See that a value that was opened before, in any round or study, is added up with the same sites again.

        Args:
            roster: of the sum.
            context: of the sum.
            tells: digests of what the value tells, and of numbers in it; empty where that is not known.

        Raises:
            RefusedError: it is to be added up with others, or the register of another study was set back.
        """
        if context.digest.hex() not in self.registers.read().sent:
            self._expect_summed_with(tells, _sites(roster, context.asked))

    def _expect_summed_with(self, tells: Collection[str], sites: str) -> None:
        """See that in no study a value, or a number of it, was opened in a sum of other sites."""
        others = () if self.confirms else self.folder.parent.glob("*")
        for folder in sorted({*others, self.folder}):
            try:
                register = replace(self.registers, folder=folder, study=folder.name).read()
            except RefusedError as error:
                if folder == self.folder:
                    raise
                raise RefusedError(
                    error.code,
                    f"{error.detail}; which of its values were opened is not known: put back its newest backup "
                    "or, agreed with the privacy officer, forget it with `msfl-client reset-answers SITE.yaml "
                    f"{folder.name}`",
                ) from None
            if any(register.summed.get(one, sites) != sites for one in tells):
                raise _bad(_OTHER_SITES)

    def open(self, opening: Opening) -> Shares:
        """This site's shares, so that a sum is opened; that they are given is on its disk when this returns.

        Raises:
            RefusedError: the sum may not be opened, or this site cannot help.
            OSError: it cannot be written down, so nothing may leave.
        """
        if (given := kept_shares(self.folder, opening)) is not None:
            return given
        keys = self._keys(opening.context.roster)
        register = self.registers.read()
        try:
            expect_opening(keys.roster, opening, self.site.name, register.opened.get(opening.context.request))
        except UpdateError as error:
            raise _bad(str(error)) from None
        self._expect_enough(len(opening.members))
        mine = next((head.payload for head in opening.heads if head.site == self.site.name), None)
        if mine is not None and mine != register.sent.get(opening.context.digest.hex()):
            raise _bad("the value in the sum is not the one that this site has sent")
        context = opening.context.digest.hex()
        tells = {*filter(None, [register.tells.get(context)]), *register.parts.get(context, ())}
        sites = _sites(keys.roster, opening.members)
        if tells:
            self._expect_summed_with(tells, sites)
        # before shares are kept to be sent
        self.registers.opens(register, opening.context.request, opening.digest, dict.fromkeys(tells, sites))
        shares = keys.shares_for(opening)
        keep_shares(self.folder, opening, shares)
        return shares

    def end(self) -> None:
        """The study has ended: its secrets go; rosters, register and the last shares stay as evidence."""
        delete_secrets(self.folder)
        delete_values(self.folder)

    def _keys(self, roster: str) -> MaskKeys:
        """The keys for a roster that a person has confirmed; a sum of an earlier one may still be opened."""
        secrets, found = self._secrets(), Rosters(self.folder).read(roster)
        if found is None:
            raise RefusedError(Code.NO_MASK_KEY, "the sum is of a roster that was not handed out here")
        if roster not in Rosters(self.folder).state().confirmed:
            self.expect_confirmed(roster)
        try:
            return MaskKeys(found, self.site.name, secrets.mask_key, secrets.secret, self.key)
        except UpdateError:
            raise RefusedError(Code.NO_MASK_KEY, "the sum is of a roster with an earlier key of this site") from None

    def _secrets(self) -> MaskSecrets:
        secrets = read_secrets(self.folder)
        if secrets is None:
            raise RefusedError(Code.NO_MASK_KEY, f"{self.folder}: no key for masks of study {self.study.name}")
        self.registers.read()
        return secrets

    def _is_set_back(self) -> bool:
        try:
            self.registers.read()
        except RefusedError:
            return True
        return False

    def _expect_enough(self, num_sites: int) -> None:
        fewest = self.site.policy.min_sites_in_sum
        if num_sites < fewest:
            raise RefusedError(Code.POLICY, f"a masked sum of {num_sites} sites, at least {fewest} (min_sites_in_sum)")


def site_masks(
    site: SiteConfig, study: StudyConfig, key: ec.EllipticCurvePrivateKey | None, is_simulated: bool
) -> SiteMasks:
    """A site's part in the masked sums of a study.

    Args:
        site: whose.
        study: the whole of it.
        key: its registered key; None where it has none.
        is_simulated: whether it is a site of a simulation, which makes a key of its own and confirms each roster.

    Raises:
        RefusedError: it has no key, and is no site of a simulation.
    """
    folder, marks = site.state / FOLDER / study.name, None
    if key is not None:
        marks = _marks(site)
    elif is_simulated:
        key = _simulated_key(site)
    else:
        raise RefusedError(Code.NO_MASK_KEY, f"{site.key}: a site takes part in masked sums with its registered key")
    return SiteMasks(site, study, key, folder, Registers(folder, study.name, marks), is_simulated)


def answer_anew(site: SiteConfig, study: str) -> None:
    """A person lets a study be answered anew: with a new key, in a new roster, and its requests opened again."""
    folder = site.state / FOLDER / study
    if folder.exists():
        delete_secrets(folder)
        delete_values(folder)
        Registers(folder, study, _marks(site) if site.key.exists() else None).renew(keep_opened=False)


def _marks(site: SiteConfig) -> Path:
    return site.key.with_name(site.key.name + MARK_SUFFIX)


def _simulated_key(site: SiteConfig) -> ec.EllipticCurvePrivateKey:
    path = site.state / _SIMULATED_KEY
    private_folder(site.state)
    if not path.exists():
        make_key(path, site.name)
    return load_key(path)


def _sites(roster: Roster, names: Iterable[str]) -> str:
    """Digest of who adds up: names, and registered keys."""
    keys = {name: roster.entry(name).site_key for name in names}
    return hashlib.sha256(canonical({"sites": keys})).hexdigest()


def _bad(why: str) -> RefusedError:
    return RefusedError(Code.BAD_SUM, why)
