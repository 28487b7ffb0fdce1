"""The tests; `typechecking` is found here by its dotted name, from the packages that it checks."""

from tests.helpers import typechecking as typechecking
