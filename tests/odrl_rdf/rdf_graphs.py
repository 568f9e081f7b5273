"""Graphs of ours as graphs of rdflib, which is the judge of both readers."""

import rdflib

from connector.odrl_rdf.rdf import XSD, Graph, Literal, Term


def as_rdflib(graph: Graph) -> rdflib.Graph:
    found = rdflib.Graph()
    for subject, said in graph.nodes.items():
        for predicate, terms in said.items():
            for term in terms:
                found.add((_node(subject), rdflib.URIRef(predicate), _term(term, found)))
    return found


def _node(name: str) -> rdflib.URIRef | rdflib.BNode:
    return rdflib.BNode("n" + name[2:].replace("#", "anonymous")) if name.startswith("_:") else rdflib.URIRef(name)


def _term(term: Term, graph: rdflib.Graph) -> rdflib.term.Node:
    if isinstance(term, tuple):
        if not term:
            return rdflib.RDF.nil
        node = rdflib.BNode()
        graph.add((node, rdflib.RDF.first, _term(term[0], graph)))
        graph.add((node, rdflib.RDF.rest, _term(term[1:], graph)))
        return node
    if isinstance(term, Literal):
        datatype = None if term.datatype == XSD + "string" else rdflib.URIRef(term.datatype)
        return rdflib.Literal(term.text, lang=term.language or None, datatype=None if term.language else datatype, normalize=False)
    return _node(term)
